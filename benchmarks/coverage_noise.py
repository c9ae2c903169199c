"""Write noise in the likeness of a corpus: boilerplate, spam, garbled text, copies, and other languages.

    python -m benchmarks coverage_noise --corpus corpus.jsonl.gz --out noise.jsonl [--share 1] [--seed 11]

All of it is made here, with a seed, `share` times as many documents as the corpus has:

- boilerplate (a fifth): menus, cookie notices, error pages and footers in short lines;
- spam (a fifth): advertisements in whole sentences; every other one is stuffed with words of a document;
- garbled (a fifth): a document in UTF-16 taken for Latin-1 (readers take out its NULs: most become copies),
  with letters shuffled in their words, with one character in twenty unreadable, or in base64;
- exact (a tenth): a document again, under another id;
- near (a tenth): a document with 1 % of its words replaced, without its last twentieth, or with a footer;
- language (a fifth): sentences of German, French, Spanish, Italian, Portuguese, Dutch, Swedish and Polish on
  science, put together from their parts, as long as an abstract.

Each line has `_id` (noise-KIND-NUMBER), `title` and `text`. Titles of garbled text and copies are those of
their documents; spam that is stuffed takes its title from the document, too.
"""

import argparse
import base64
import gzip
import json
import random
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SHARES = {"boilerplate": 0.2, "spam": 0.2, "garbled": 0.2, "exact": 0.1, "near": 0.1, "language": 0.2}
SEED = 11
Record = Mapping[str, str]

NAMES = ("Acme", "Nordwind", "Bluefin", "Oakley", "Pinecrest", "Silverline", "Hartwell", "Vertex", "Lumen")
ITEMS = (
    *("Home", "About us", "Products", "Careers", "Press", "Contact", "Login", "Sitemap", "Newsletter"),
    *("FAQ", "Basket", "Help", "Downloads", "Events", "Partners", "Archive", "Search", "Imprint"),
)
BOILERPLATE = (
    "{name} uses cookies. By browsing on, you accept our use of cookies.",
    "Copyright {year} {name} Ltd. All rights reserved.",
    "Read our privacy policy and terms of use.",
    "Please enable JavaScript in your browser to see this page.",
    "Error {number}: the page you asked for was not found",
    "Share on social media | Print | Send to a friend",
    "You are here: {item} > {item} > {item}",
    "{item} | {item} | {item} | {item}",
    "Posted by admin on {day}/{month}/{year} - {number} comments",
    "Loading ...",
    "Page {day} of {number}",
    "Next article >>",
    "Subscribe to the {name} newsletter",
    "Lorem ipsum dolor sit amet",
)
SPAM = (
    "Buy {product} now and save {percent} %!!!",
    "Best price for {product}, click here: http://{name}-{number}.example",
    "Our doctors hate this {product} trick $$$",
    "Order {product} today, free shipping, no questions asked!",
    "Cheap {product} cheap {product} cheap {product}",
    "You have won {number} dollars, claim your prize here >>>",
    "Limited offer: {product} for only ${percent}.99!!!",
    "{product} ~ {product} ~ {product} ~ best deals #1",
    "Join {number} happy customers of {name} and win {product}!",
    "WORK FROM HOME AND EARN ${number} A WEEK!!!",
)
PRODUCTS = ("pills", "watches", "casino chips", "diet tea", "phone cards", "loans", "insurance", "handbags",
            "hair cream", "crypto coins", "car tyres", "sunglasses")  # fmt: skip
# Per language: beginnings, verbs with what surrounds them, ends. Any of each makes a sentence.
LANGUAGES = {
    "de": (
        (
            "Die neue Untersuchung",
            "Eine Gruppe von Forschern",
            "Das menschliche Immunsystem",
            "Jede zweite Zelle",
        ),
        ("zeigt in vielen Fällen", "verändert nach einigen Wochen", "beeinflusst unter diesen Umständen"),
        (
            "die Wirkung der Behandlung",
            "das Wachstum des Gewebes",
            "den Verlauf der Krankheit",
            "alle Ergebnisse",
        ),
    ),
    "fr": (
        (
            "La nouvelle étude",
            "Une équipe de chercheurs",
            "Le système immunitaire",
            "Chaque cellule du tissu",
        ),
        ("montre dans plusieurs cas", "modifie après quelques semaines", "influence dans ces conditions"),
        (
            "les effets du traitement",
            "la croissance des tissus",
            "le cours de la maladie",
            "tous les résultats",
        ),
    ),
    "es": (
        (
            "El nuevo estudio",
            "Un grupo de investigadores",
            "El sistema inmunitario",
            "Cada célula del tejido",
        ),
        ("muestra en muchos casos", "cambia después de unas semanas", "influye en estas condiciones sobre"),
        ("los efectos del tratamiento", "el crecimiento de los tejidos", "el curso de la enfermedad"),
    ),
    "it": (
        ("Il nuovo studio", "Un gruppo di ricercatori", "Il sistema immunitario", "Ogni cellula del tessuto"),
        ("mostra in molti casi", "modifica dopo alcune settimane", "influenza in queste condizioni"),
        (
            "gli effetti della cura",
            "la crescita dei tessuti",
            "il decorso della malattia",
            "tutti i risultati",
        ),
    ),
    "pt": (
        ("O novo estudo", "Um grupo de pesquisadores", "O sistema imunológico", "Cada célula do tecido"),
        ("mostra em muitos casos", "altera depois de algumas semanas", "influencia nessas condições"),
        (
            "os efeitos do tratamento",
            "o crescimento dos tecidos",
            "a evolução da doença",
            "todos os resultados",
        ),
    ),
    "nl": (
        ("Het nieuwe onderzoek", "Een groep onderzoekers", "Het menselijke afweersysteem", "Elke tweede cel"),
        ("laat in veel gevallen zien", "verandert na enkele weken", "beïnvloedt onder deze omstandigheden"),
        ("de werking van de behandeling", "de groei van het weefsel", "het verloop van de ziekte"),
    ),
    "sv": (
        ("Den nya studien", "En grupp forskare", "Människans immunförsvar", "Varannan cell i vävnaden"),
        ("visar i många fall", "förändrar efter några veckor", "påverkar under dessa förhållanden"),
        ("effekterna av behandlingen", "vävnadens tillväxt", "sjukdomens förlopp", "samtliga resultat"),
    ),
    "pl": (
        ("Nowe badanie", "Grupa naukowców", "Ludzki układ odpornościowy", "Każda komórka tkanki"),
        ("pokazuje w wielu przypadkach", "zmienia po kilku tygodniach", "kształtuje w tych warunkach"),
        ("skutki leczenia", "wzrost tkanek", "przebieg choroby", "wszystkie wyniki"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="JSON lines with title and text, may be gzipped"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="documents of noise for one of the corpus")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    made = noise(read_corpus(options.corpus), options.share, options.seed)
    write_records(options.out, made)
    print(f"{len(made):,} documents of noise in {options.out}")


def read_corpus(path: Path) -> list[Record]:
    """Return the records of a corpus that have a text."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [record for record in records if record["text"].strip()]


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records, unless the file holds the same already: builds know files by their times."""
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")


def noise(corpus: Sequence[Record], share: float = 1.0, seed: int = SEED) -> list[Record]:
    """Return noise of all kinds in random order, about `share` records for each of the corpus."""
    draw = random.Random(seed)
    made = []
    for kind, part in SHARES.items():
        for number in range(round(len(corpus) * share * part)):
            title, text = MAKERS[kind](corpus[draw.randrange(len(corpus))], draw)
            made.append({"_id": f"noise-{kind}-{number}", "title": title, "text": text})
    draw.shuffle(made)
    return made


def boilerplate(_: Record, draw: random.Random) -> tuple[str, str]:
    lines = [filled(draw.choice(BOILERPLATE), draw) for _ in range(draw.randint(8, 25))]
    return f"{draw.choice(NAMES)} - {draw.choice(ITEMS)}", "\n".join(lines)


def spam(document: Record, draw: random.Random) -> tuple[str, str]:
    sentences = [filled(draw.choice(SPAM), draw) for _ in range(draw.randint(8, 20))]
    if draw.random() < 0.5:
        return filled("{product} from {name}", draw), " ".join(sentences)
    words = document["text"].split()
    for place, sentence in enumerate(sentences):
        sentences[place] = " ".join([sentence, *draw.sample(words, min(4, len(words)))])
    return document["title"], " ".join(sentences)


def garbled(document: Record, draw: random.Random) -> tuple[str, str]:
    way = draw.choice(("encoding", "letters", "unreadable", "base64"))
    text = document["text"]
    if way == "encoding":
        return document["title"], text.encode("utf-16-le", "replace").decode("latin-1")
    if way == "letters":
        return document["title"], " ".join("".join(draw.sample(word, len(word))) for word in text.split())
    if way == "unreadable":
        characters = [draw.choice("\ufffd\x00\x07\x1b") if draw.random() < 0.05 else one for one in text]
        return document["title"], "".join(characters)
    return document["title"], base64.b64encode(text.encode("utf-8", "replace")).decode()


def exact(document: Record, _: random.Random) -> tuple[str, str]:
    return document["title"], document["text"]


def near(document: Record, draw: random.Random) -> tuple[str, str]:
    words = document["text"].split()
    way = draw.choice(("replaced", "shortened", "footer"))
    if way == "replaced":
        for place in draw.sample(range(len(words)), max(1, len(words) // 100)):
            words[place] = "".join(draw.choices(string.ascii_lowercase, k=7))
    elif way == "shortened":
        words = words[: max(1, len(words) - max(1, len(words) // 20))]
    else:
        words += filled("Copyright {year} {name} Ltd.", draw).split()
    return document["title"], " ".join(words)


def language(_: Record, draw: random.Random) -> tuple[str, str]:
    parts = LANGUAGES[draw.choice(list(LANGUAGES))]
    sentences = [" ".join(draw.choice(part) for part in parts) for _ in range(draw.randint(10, 25))]
    return sentences[0], ". ".join(sentences) + "."


def filled(template: str, draw: random.Random) -> str:
    """Return a template with another name, number or thing in each place."""
    values: dict[str, Callable[[], object]] = {
        "name": lambda: draw.choice(NAMES),
        "item": lambda: draw.choice(ITEMS),
        "product": lambda: draw.choice(PRODUCTS),
        "year": lambda: draw.randint(1998, 2025),
        "month": lambda: draw.randint(1, 12),
        "day": lambda: draw.randint(1, 28),
        "percent": lambda: draw.randint(5, 95),
        "number": lambda: draw.randint(100, 99_999),
    }
    pieces = []
    for before, field, _, _ in string.Formatter().parse(template):
        pieces.append(before + (str(values[field]()) if field else ""))
    return "".join(pieces)


MAKERS: dict[str, Callable[[Record, random.Random], tuple[str, str]]] = {
    "boilerplate": boilerplate,
    "spam": spam,
    "garbled": garbled,
    "exact": exact,
    "near": near,
    "language": language,
}


if __name__ == "__main__":
    main()
