"""Recipes: what a TOML file may say, how paths resolve, who wins, and what a mistake is answered with."""

import dataclasses
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from compactds.configs.errors import (
    ConfigError,
    ConfigFileError,
    ConfigSyntaxError,
    InvalidValueError,
    UnknownKeyError,
)
from compactds.configs.recipe import (
    EncoderConfig,
    Format,
    Recipe,
    Source,
    TypeName,
    load_recipe,
    parse_bytes,
    recipe_for,
)
from compactds.configs.toml import to_toml
from compactds.datastore.encoders.base import EncoderOptions
from compactds.datastore.encoders.settings import DTYPES, KINDS
from compactds.filters.schema import FieldType
from compactds.indexer.sources.formats import FORMATS
from compactds.indexer.sources.options import SourceOptions

ONE_SOURCE = '[[sources]]\npath = "notes.jsonl"\n'


def write(folder: Path, text: str | bytes, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(folder: Path, text: str) -> Recipe:
    return load_recipe(write(folder, text))


def refusal(folder: Path, text: str | bytes) -> ConfigError:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert caught.value.message.startswith(str(path))
    return caught.value


def test_one_source_is_enough_and_the_rest_has_defaults(tmp_path):
    recipe = load(tmp_path, ONE_SOURCE)
    assert recipe.name == "recipe"
    assert (recipe.passages.words, recipe.passages.min_words) == (256, 32)
    assert recipe.passages.split
    assert recipe.passages.embed_title
    assert recipe.encoder == EncoderConfig(model="minilm")
    assert recipe.exact_encoder is None
    assert recipe.exact.dtype == "float16"
    assert recipe.index.kind == "auto"
    assert recipe.index.memory_bytes == 512_000_000
    assert not recipe.skip_invalid
    assert not recipe.has_vectors


def test_a_full_recipe_is_read_as_written(tmp_path):
    recipe = load(
        tmp_path,
        """
        name = "books"
        skip_invalid = true
        [[sources]]
        path = "hf:owner/name"
        format = "huggingface"
        name = "web"
        attributes = ["year"]
        max_documents = 10
        [sources.fields]
        text = "body"
        [attributes]
        year = "int64"
        tags = "list<string>"
        [passages]
        words = 100
        split = false
        [encoder]
        model = "e5-base"
        dimension = 128
        [exact_encoder]
        model = "gritlm"
        [exact]
        dtype = "float32"
        [index]
        kind = "ivf"
        memory = "2GiB"
        """,
    )
    source = recipe.sources[0]
    assert (source.path, source.format, source.name) == ("hf:owner/name", "huggingface", "web")
    assert (source.fields, source.attributes, source.max_documents) == ({"text": "body"}, ["year"], 10)
    assert recipe.attributes == {"year": "int64", "tags": "list<string>"}
    assert recipe.encoder.dimension == 128
    assert recipe.exact_encoder is not None
    assert recipe.exact_encoder.model == "gritlm"
    assert recipe.index.memory_bytes == 2 * 2**30


def test_encoder_keys_are_the_options_encoders_take():
    ours = {name: field.default for name, field in EncoderConfig.model_fields.items()}
    assert ours == {field.name: field.default for field in dataclasses.fields(EncoderOptions)}
    assert EncoderOptions(**EncoderConfig().model_dump()) == EncoderOptions()
    assert EncoderConfig.model_fields["kind"].annotation.__args__ == KINDS
    assert EncoderConfig.model_fields["dtype"].annotation.__args__ == DTYPES


def test_attribute_types_are_the_types_of_the_schema():
    assert set(TypeName.__args__) == {kind.value for kind in FieldType}


def test_formats_and_fields_of_a_source_are_those_that_are_read():
    assert set(Format.__args__) == {"auto", *FORMATS}
    options = {field.name: field.default for field in dataclasses.fields(SourceOptions)}
    for name in ("format", "name", "attributes", "max_documents", "config", "split", "revision"):
        assert Source.model_fields[name].default == options[name]


def test_short_passages_have_a_shorter_tail_by_default(tmp_path):
    assert load(tmp_path, ONE_SOURCE + "[passages]\nwords = 20\n").passages.min_words == 5
    assert load(tmp_path, ONE_SOURCE + "[passages]\nwords = 1\n").passages.min_words == 0


def test_a_recipe_cannot_be_changed_after_it_is_read(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, ONE_SOURCE).name = "other"


class TestPaths:
    def test_relative_paths_start_at_the_recipes_folder(self, tmp_path, monkeypatch):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        recipe = load(tmp_path, 'vectors = "v.npy"\n' + ONE_SOURCE + '[encoder]\nmodel = "./model"\n')
        assert recipe.sources[0].path == str(tmp_path / "notes.jsonl")
        assert recipe.vectors == tmp_path / "v.npy"
        assert recipe.encoder.model == str(tmp_path / "model")

    def test_absolute_and_home_paths_stay(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", "/home/someone")
        recipe = load(tmp_path, '[[sources]]\npath = "/data/a"\n[[sources]]\npath = "~/b"\n')
        assert [source.path for source in recipe.sources] == ["/data/a", "/home/someone/b"]

    def test_a_dataset_id_stays_unless_such_a_folder_exists(self, tmp_path):
        text = '[[sources]]\npath = "owner/dataset"\n'
        assert load(tmp_path, text).sources[0].path == "owner/dataset"
        (tmp_path / "owner").mkdir()
        assert load(tmp_path, text).sources[0].path == str(tmp_path / "owner/dataset")
        for path in ("hf:owner/name", "some/data-v1.0"):
            assert load(tmp_path, f'[[sources]]\npath = "{path}"\n').sources[0].path == path
        for path in ("missing/data.jsonl", "missing/data.TXT", "missing/data.csv.gz"):
            assert load(tmp_path, f'[[sources]]\npath = "{path}"\n').sources[0].path == str(tmp_path / path)
        explicit = load(tmp_path, text + 'format = "huggingface"\n')
        assert explicit.sources[0].path == "owner/dataset"

    def test_paths_are_made_plain_unless_a_link_leads_elsewhere(self, tmp_path, monkeypatch):
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
        monkeypatch.chdir(tmp_path / "deep")
        (plain, linked) = recipe_for(["../docs/./a.jsonl", "../link/../b.jsonl"]).sources
        assert plain.path == str(tmp_path / "docs" / "a.jsonl")
        assert linked.path == str(tmp_path / "deep" / ".." / "link" / ".." / "b.jsonl")

    def test_a_models_name_is_not_a_path(self, tmp_path):
        (tmp_path / "minilm").mkdir()
        assert load(tmp_path, ONE_SOURCE + '[encoder]\nmodel = "minilm"\n').encoder.model == "minilm"

    def test_an_unknown_home_is_refused(self, tmp_path):
        with pytest.raises(InvalidValueError, match="~no-such-user-here"):
            load(tmp_path, '[[sources]]\npath = "~no-such-user-here/a"\n')


class TestReadyMadeVectors:
    def test_vectors_without_a_named_encoder_mean_queries_come_as_vectors(self, tmp_path):
        for text in ('vectors = "v.npy"\n' + ONE_SOURCE, ONE_SOURCE + 'vector = "embedding"\n'):
            recipe = load(tmp_path, text)
            assert recipe.has_vectors
            assert recipe.encoder.kind == "vectors"

    def test_a_named_encoder_serves_the_queries(self, tmp_path):
        recipe = load(tmp_path, 'vectors = "v.npy"\n' + ONE_SOURCE + '[encoder]\nmodel = "minilm"\n')
        assert (recipe.encoder.kind, recipe.encoder.model) == ("auto", "minilm")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('vectors = "v.npy"\n' + ONE_SOURCE + 'vector = "e"\n', "choose one"),
            (ONE_SOURCE + 'vector = "e"\n' + ONE_SOURCE, "some sources name a vector field"),
            ('vectors = "v.npy"\n' + ONE_SOURCE + "[exact_encoder]\n", "leave exact_encoder out"),
            (ONE_SOURCE + '[encoder]\nkind = "vectors"\n', "neither vectors nor"),
        ],
    )
    def test_contradictions_are_refused(self, tmp_path, text, reason):
        assert reason in refusal(tmp_path, text).message


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "message", "remedy"),
        [
            ("nam = 'x'\n" + ONE_SOURCE, "unknown key 'nam' in the top level", "'name'"),
            ('[[sources]]\npth = "a"\n', "unknown key 'pth' in [[sources]] number 1", "'path'"),
            (ONE_SOURCE + "[passages]\nword = 1\n", "unknown key 'word' in [passages]", "'words'"),
            (
                ONE_SOURCE + "[exact_encoder]\nmodle = 1\n",
                "unknown key 'modle' in [exact_encoder]",
                "'model'",
            ),
            (ONE_SOURCE + "[exact]\nzzzzz = 1\n", "unknown key 'zzzzz' in [exact]", "Known keys: dtype."),
            ("game = 'x'\n" + ONE_SOURCE, "unknown key 'game' in the top level", "'name'"),
            (
                ONE_SOURCE + "[passages]\nembed = 1\n",
                "unknown key 'embed' in [passages]",
                "Known keys: words",
            ),
            (
                ONE_SOURCE + "vectors = 'v.npy'\n",
                "unknown key 'vectors' in [[sources]] number 1",
                "'vectors' is a key of the whole: write it above all tables in brackets.",
            ),
        ],
    )
    def test_an_unknown_key_is_named_with_its_table_and_the_nearest_key(
        self, tmp_path, text, message, remedy
    ):
        error = refusal(tmp_path, text)
        assert isinstance(error, UnknownKeyError)
        assert message in error.message
        assert remedy in error.remedy

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "the top level lacks the key 'sources'"),
            ("sources = []", "'sources' in the top level is []: "),
            ("sources = 'a'", "'sources' in the top level is 'a': expected a valid list"),
            ("sources = ['a']", "[[sources]] number 1 is 'a': expected a table"),
            ("[[sources]]\npath = ''", "'path' in [[sources]] number 1 is ''"),
            ('[[sources]]\npath = "a\\u0000b"', "NUL"),
            ("encoder = 1\n" + ONE_SOURCE, "'encoder' in the top level is 1: expected a table"),
            (
                ONE_SOURCE + "[passages]\nwords = '9'",
                "'words' in [passages] is '9': expected a valid integer",
            ),
            (
                ONE_SOURCE + "[passages]\nwords = true",
                "'words' in [passages] is True: expected a valid integer",
            ),
            (ONE_SOURCE + "[passages]\nwords = 0", "'words' in [passages] is 0: expected greater than"),
            (
                ONE_SOURCE + "[passages]\nwords = 9\nmin_words = 9",
                "min_words is 9, expected less than words, 9",
            ),
            (ONE_SOURCE + "[passages]\nsplit = 1", "'split' in [passages] is 1: expected a valid boolean"),
            (
                ONE_SOURCE + "[attributes]\nyear = 'int'",
                "'year' in [attributes] is 'int': expected 'bool', 'int64'",
            ),
            (ONE_SOURCE + "[index]\nmemory = '12XB'", "'memory' in [index] is '12XB': expected a size"),
            (ONE_SOURCE + "[index]\nkind = 'tree'", "expected 'auto', 'flat', 'hnsw' or 'ivf'"),
        ],
    )
    def test_a_wrong_value_is_named_with_its_key_and_what_was_expected(self, tmp_path, text, message):
        error = refusal(tmp_path, text)
        assert isinstance(error, InvalidValueError)
        assert message in error.message

    def test_a_remedy_says_what_the_key_is_for(self, tmp_path):
        error = refusal(tmp_path, ONE_SOURCE + "[passages]\nwords = 'x'")
        assert error.remedy == "words: The most words a passage has."
        assert error.value == "x"
        assert str(error) == f"{error.message} {error.remedy}"

    def test_a_misspelt_required_key_is_told_as_a_misspelling(self, tmp_path):
        assert refusal(tmp_path, '[[sources]]\nPath = "a"').value == "Path"

    def test_a_long_value_is_cut(self, tmp_path):
        assert len(refusal(tmp_path, ONE_SOURCE + f"[index]\nkind = '{'x' * 5000}'").message) < 400

    @pytest.mark.parametrize(
        ("text", "line"),
        [("name = \n", 1), ("a = 1\nb = = 2\n", 2), ('a = 1\n\nb = """x\n', 4), (b"a = 1\nb = '\xff'\n", 2)],
    )
    def test_a_syntax_error_names_file_and_line(self, tmp_path, text, line):
        error = refusal(tmp_path, text)
        assert isinstance(error, ConfigSyntaxError)
        assert error.message.startswith(f"{tmp_path / 'recipe.toml'}, line {line}: ")

    def test_a_missing_file_and_a_folder_are_refused_by_name(self, tmp_path):
        with pytest.raises(ConfigFileError, match=r"absent\.toml: no such file"):
            load_recipe(tmp_path / "absent.toml")
        with pytest.raises(ConfigFileError, match="cannot be read: Is a directory"):
            load_recipe(tmp_path)

    def test_a_byte_order_mark_is_no_mistake(self, tmp_path):
        assert load_recipe(write(tmp_path, b"\xef\xbb\xbf" + ONE_SOURCE.encode())).name == "recipe"


class TestRecipeFor:
    def test_paths_become_sources_in_order(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        recipe = recipe_for(["b.jsonl.gz", "a.txt"])
        assert [source.path for source in recipe.sources] == [
            str(tmp_path / "b.jsonl.gz"),
            str(tmp_path / "a.txt"),
        ]
        assert recipe.name == "datastore"
        assert recipe_for(["b.jsonl.gz"]).name == "b"
        assert recipe_for(["."]).name == tmp_path.name
        assert recipe_for(["/"]).name == "datastore"

    def test_overrides_win_over_the_recipe_and_keep_the_rest(self, tmp_path):
        text = (
            ONE_SOURCE
            + ONE_SOURCE
            + '[attributes]\nyear = "int64"\n[passages]\nwords = 100\nembed_title = false\n'
        )
        overrides = {"passages.words": 80, "attributes": {"day": "date"}, "sources.vector": "e", "name": "n"}
        recipe = recipe_for([str(write(tmp_path, text))], overrides)
        assert (recipe.passages.words, recipe.passages.embed_title, recipe.name) == (80, False, "n")
        assert recipe.attributes == {"year": "int64", "day": "date"}
        assert [source.vector for source in recipe.sources] == ["e", "e"]

    def test_an_override_does_not_hide_a_table_of_the_wrong_type(self, tmp_path):
        path = write(tmp_path, "passages = 1\n" + ONE_SOURCE)
        with pytest.raises(InvalidValueError, match="'passages' in the top level is 1"):
            recipe_for([str(path)], {"passages.words": 80})

    def test_paths_given_start_at_the_working_directory(self, tmp_path, monkeypatch):
        recipe = tmp_path / "recipes" / "recipe.toml"
        recipe.parent.mkdir()
        recipe.write_text('[[sources]]\npath = "a.txt"\n')
        monkeypatch.chdir(tmp_path)
        models = {"encoder": {"model": "./near"}, "exact_encoder": {"model": "../far"}}
        built = load_recipe(recipe, models)
        assert built.encoder.model == str(tmp_path / "near")
        assert built.exact_encoder is not None
        assert Path(built.exact_encoder.model).resolve() == tmp_path.parent / "far"
        assert models["encoder"] == {"model": "./near"}
        assert load_recipe(recipe, {"encoder.model": "./near"}).encoder.model == str(tmp_path / "near")
        assert load_recipe(recipe, {"encoder": {"model": "minilm"}}).encoder.model == "minilm"
        assert load_recipe(recipe, {"vectors": "v.npy"}).vectors == tmp_path / "v.npy"
        assert built.sources[0].path == str(recipe.parent / "a.txt")

    def test_an_encoder_given_replaces_the_recipes_with_all_its_settings(self, tmp_path):
        path = write(tmp_path, ONE_SOURCE + '[encoder]\nmodel = "e5"\nquery_prompt = "query: "\n')
        recipe = recipe_for([str(path)], {"encoder": {"model": "minilm"}})
        assert recipe.encoder == EncoderConfig(model="minilm")

    def test_a_wrong_flag_is_not_blamed_on_the_recipe(self, tmp_path):
        path = write(tmp_path, ONE_SOURCE + "[attributes]\nyear = 'int64'\n")
        with pytest.raises(InvalidValueError, match=r"^command line: 'kind' in \[index\] is 'x'"):
            recipe_for([str(path)], {"index.kind": "x"})
        with pytest.raises(InvalidValueError, match=r"^command line: 'day' in \[attributes\] is 'day'"):
            recipe_for([str(path)], {"attributes": {"day": "day"}})

    def test_a_wrong_override_names_the_command_line(self):
        with pytest.raises(InvalidValueError, match=r"command line: 'words' in \[passages\] is 0"):
            recipe_for(["a.txt"], {"passages.words": 0})


def test_every_shipped_recipe_loads_and_survives_being_written_out(tmp_path):
    shipped = [file for file in files("compactds.configs").iterdir() if file.name.endswith(".toml")]
    assert {file.name for file in shipped} >= {"demo.toml", "textbooks.toml"}
    for file in shipped:
        recipe = load_recipe(Path(str(file)))
        assert load(tmp_path, to_toml(recipe.model_dump(mode="json"))) == recipe
        assert load(tmp_path, to_toml(recipe.tables())) == recipe


def test_tables_say_nothing_of_what_is_not_there_but_keep_lists_that_mean_none(tmp_path):
    path = str(tmp_path / "a.jsonl")
    recipe = recipe_for([path], {"sources.attributes": []})
    tables = recipe.tables()
    assert "filters" not in tables
    assert tables["sources"] == [
        {**recipe.sources[0].model_dump(exclude={"name", "split"}), "path": path, "attributes": []}
    ]
    assert recipe_for(["hf:owner/name"]).tables()["sources"][0]["split"] == "train"


def test_what_is_printed_can_be_appended_to(tmp_path):
    recipe = recipe_for([str(tmp_path / "a.jsonl")])
    text = to_toml(recipe.tables()) + '\n[[filters]]\nfilter = "length"\nmin_words = 3\n'
    assert load(tmp_path, text).filters[0].filter == "length"


def test_a_list_and_tables_of_one_name_are_told_as_that(tmp_path):
    text = 'filters = []\nsources = []\n[[filters]]\nfilter = "length"\n'
    with pytest.raises(ConfigSyntaxError, match=r"line 3: not valid TOML: 'filters' is given twice"):
        load(tmp_path, text)


def test_every_key_has_a_description():
    def undescribed(model):
        for name, field in model.model_fields.items():
            if not field.description:
                yield f"{model.__name__}.{name}"

    models = [
        Recipe,
        EncoderConfig,
        *(type(getattr(recipe_for(["a"]), key)) for key in ("passages", "exact", "index")),
    ]
    assert [name for model in models for name in undescribed(model)] == []


def test_toml_is_written_so_that_it_reads_back():
    tables = {
        "text": 'quote " backslash \\ newline \n tab \t delete \x7f bell \a π 😀',
        "a key": {"dotted.name": 1, "empty": {}, "ü": -0.5},
        "list": ["a", "b"],
        "none": None,
        "path": Path("a/b"),
        "tables": [{"x": True, "inner": {"y": False}}, {"x": False}],
        "nothing": [],
    }
    expected = {key: value for key, value in tables.items() if key != "none"} | {"path": "a/b"}
    expected["a key"] = {"dotted.name": 1, "ü": -0.5}
    assert tomllib.loads(to_toml(tables)) == expected


def test_parse_bytes_is_offered_beside_the_recipe():
    assert parse_bytes("2GB") == 2_000_000_000
