"""`compactds demo`: the bundled corpus, built, served and asked, from nothing to answers."""

import json
import shlex
import sys
import textwrap
import threading
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compactds.cli.build import run
from compactds.cli.output import NAME, clean, program, say, warn
from compactds.cli.serve import curl

if TYPE_CHECKING:
    from compactds.configs.recipe import Recipe
    from compactds.datastore import Datastore

QUESTIONS: tuple[tuple[str, dict[str, Any] | None], ...] = (
    ("Why is the sky blue?", None),
    ("Why do sellers of bad used cars drive out sellers of good ones?", None),
    ("What did experiments show about light?", {"subject": "college_physics", "year": {"$gte": 1900}}),
)
_SNIPPET_CHARACTERS = 300


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the store.")] = Path("demo-store"),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to serve on; a free one if it is taken.")
    ] = 8080,
    once: Annotated[bool, typer.Option("--once", help="Stop after the answers.")] = False,
) -> None:
    """Build the bundled corpus, serve it and ask it questions."""
    from compactds.configs.recipe import load_recipe

    recipe = load_recipe(Path(str(files("compactds.configs") / "demo.toml")))
    with _build(recipe, out) as engine, _serve(engine, port) as url:
        warn(f"serving {out} at {url}")
        _ask(url)
        keeps_serving = not once and _on_terminal()
        _show_how_to_go_on(url, out, keeps_serving=keeps_serving)
        if keeps_serving:
            say("Serving until Ctrl-C.", bold=True)
            _wait()


def _build(recipe: "Recipe", out: Path) -> "Datastore":
    """Build the store unless it is up to date, and open it; both use one encoder, loaded once."""
    from compactds.datastore import Datastore
    from compactds.datastore.encoders import EncoderOptions, load_encoder

    warn("loading the encoder …")
    encoder = load_encoder(EncoderOptions(**recipe.encoder.model_dump()))
    result = run(recipe, out, encoder=encoder)
    if not result.unchanged:
        from compactds.configs.sizes import counted

        warn(f"built {out}: {counted(result.passages, 'passage')} in {result.seconds:.1f} s")
    return Datastore.open(out, encoder=encoder)


def _serve(engine: "Datastore", port: int) -> AbstractContextManager[str]:
    from compactds.server.errors import PortInUseError
    from compactds.server.run import bind, serving
    from compactds.server.settings import ServerSettings

    settings = ServerSettings(port=port)
    try:
        bind(settings).close()
    except PortInUseError:
        warn(f"port {port} is in use; taking a free one")
        settings = ServerSettings(port=0)
    return serving(engine, settings)


def _ask(url: str) -> None:
    from compactds.clients import Client

    with Client(url) as store:
        for question, where in QUESTIONS:
            say()
            say(question, bold=True, nl=where is None)
            if where is not None:
                say(f"  where {json.dumps(where)}", fg="cyan")
            for hit in store.search(question, k=2, where=where):
                passage = hit.passage
                facts = [passage.attributes.get(name) for name in ("subject", "year")]
                known = ", ".join(str(fact) for fact in facts if fact is not None)
                say(f"{hit.rank}. {passage.title} ({known})  {hit.score:.3f}", fg="green")
                snippet = textwrap.shorten(clean(passage.text), _SNIPPET_CHARACTERS, placeholder=" …")
                for line in textwrap.wrap(snippet, 96):
                    say(f"   {line}")


def _show_how_to_go_on(url: str, out: Path, *, keeps_serving: bool) -> None:
    question, where = QUESTIONS[-1]
    command, store = program(), shlex.quote(str(out))
    say()
    say("Try it", bold=True)
    if not keeps_serving:
        say(f"  {command} serve {store} --port {url.rpartition(':')[2]}   # this server stops now")
    say(f"  {url}/docs")
    say(f"  {curl(url, question, where=json.dumps(where))}")
    say(f'  {command} search {store} "{question}" --where "subject = \'college_physics\' AND year >= 1900"')
    say()
    say(f"Or in Python, as {_python(command)} starts it", bold=True)
    for line in (  # not indented, so that it can be pasted as it is
        "from compactds.clients import Client",
        "",
        f"where = {json.dumps(where)}",
        f'with Client("{url}") as store:',
        f'    for hit in store.search("{question}", k=3, where=where):',
        "        print(hit.score, hit.passage.title)",
        "",
    ):
        say(line)


def _python(command: str) -> str:
    """Return the Python beside this program, which has its packages."""
    return "python" if command == NAME else shlex.quote(str(Path(sys.argv[0]).with_name("python")))


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _wait() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        warn("stopped")
