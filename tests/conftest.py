"""Fixtures that several test modules share: a tiny real encoder, and stores built with it."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Read when numpy, faiss and torch are loaded: for data as small as these, threads of theirs that wait for a
# core which something else has take more time than the work. Tests of threads start their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The hub's cache stays where it is when the tests' own cache folder is set below.
os.environ.setdefault(
    "HF_HOME", str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "huggingface")
)

import numpy as np
import pytest

WORDS = """\
the a of and in is to light star sun moon planet orbit gravity mass energy heat cell blood heart bone
nerve brain gene protein water acid base atom ion metal salt river rock wind rain sea map law court
vote state trade price money market tax war peace king queen empire city school child number proof
set graph angle circle line sum mean chance test code data loop key lock virus cipher tree queue stack
food fat sugar iron diet sleep dream memory fear habit mind voltage current wire signal noise wave
""".split()  # noqa: SIM905 - a list of literals would be five times as long


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what builds from the command line cache out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised sentence-transformers model of 16 dimensions and 32 tokens, on disk."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    root = tmp_path_factory.mktemp("model")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    pieces = specials + WORDS + letters + [f"##{letter}" for letter in letters]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=32)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(root / "bert")
    tokenizer.save_pretrained(root / "bert")
    transformer = Transformer(str(root / "bert"), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(16, pooling_mode="mean")], device="cpu")
    model.save(str(root / "saved"))
    return root / "saved"


def sentence(draw: np.random.Generator, words: int) -> str:
    """Return a sentence of known words."""
    return " ".join(draw.choice(WORDS, words)).capitalize() + "."


@pytest.fixture(scope="session")
def records() -> list[dict[str, object]]:
    """Sixty documents of one to three passages each, with attributes of every type."""
    draw = np.random.default_rng(1)
    made: list[dict[str, object]] = []
    for number in range(60):
        record: dict[str, object] = {
            "id": f"doc/{number}",
            "title": sentence(draw, 3),
            "text": " ".join(sentence(draw, 8) for _ in range(1 + number % 9)),
            "source": ["atlas", "reader"][number % 2],
            "subject": ["physics", "biology", "law"][number % 3],
            "year": 1990 + number % 40,
            "weight": number / 8,
            "open": number % 4 == 0,
            "date": f"20{number % 20 + 10}-03-{number % 27 + 1:02d}",
            "seen": f"2024-01-{number % 27 + 1:02d}T08:30:00Z",
            "tags": ["even" if number % 2 == 0 else "odd", f"t{number % 5}"],
            "pages": [number, number + 1],
        }
        if number % 10 == 7:
            del record["year"]
        made.append(record)
    return made


@pytest.fixture(scope="session")
def write_jsonl() -> Callable[[Path, list[dict[str, object]]], Path]:
    """Write records as JSON lines."""

    def write(path: Path, rows: list[dict[str, object]]) -> Path:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return path

    return write


BERT_WORDS = ["sky", "is", "blue", "light", "and", "energy", "cell", "of", "the", "red", "?"]


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A transformer of random weights that reads 48 tokens, on disk."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "bert"
    vocabulary = {
        word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *BERT_WORDS])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=48, **names).save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    BertModel(BertConfig(len(vocabulary), **sizes, max_position_embeddings=48)).save_pretrained(folder)
    return folder
