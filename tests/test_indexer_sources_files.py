import inspect
import io
import logging
import os
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from compactds.indexer.attributes import AttributeInference
from compactds.indexer.errors import RecordError, SourceError
from compactds.indexer.sources import SourceOptions, list_input_files, read_documents, texts
from compactds.indexer.sources.html import extract_html
from compactds.indexer.sources.hub import hub_commit
from compactds.indexer.sources.markdown import extract_markdown


def read(path, **options):
    return list(read_documents(SourceOptions(str(path), **options)))


def read_file(tmp_path, name, data, **options):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read(path, **options)


def skipped(path, **options):
    rejected = []
    documents = list(read_documents(SourceOptions(str(path), skip_invalid=True, **options), rejected.append))
    return documents, rejected


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "docs"
    for name, text in {
        "b.txt": "B",
        "a.md": "# A",
        "guides/install/linux.txt": "L",
        "guides/z.html": "<p>Z",
        ".hidden.txt": "no",
        ".git/config.txt": "no",
        "image.png": "no",
        "Makefile": "no",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class TestFolders:
    def test_are_read_in_sorted_order_without_hidden_and_unknown_files(self, folder, caplog):
        found = list_input_files(SourceOptions(str(folder)))
        assert [file.name for file in found] == ["a.md", "b.txt", "guides/z.html", "guides/install/linux.txt"]
        assert [file.format for file in found] == ["markdown", "text", "html", "text"]
        assert found[1].size_bytes == 1
        assert found[1].mtime_ns == (folder / "b.txt").stat().st_mtime_ns
        assert "skipped 2 files of unknown format (.png: 1, no suffix: 1)" in caplog.text

    def test_pass_over_datastores(self, folder, caplog):
        for name in ("whole/segments/1-0123456789abcdef", "guides/stopped/segments/12-0123456789abcdef"):
            (folder / name).mkdir(parents=True)
            (folder / name / "ledger.json").write_text("{}")
        (folder / "emptied" / "segments").mkdir(parents=True)
        for name in ("whole", "emptied"):
            (folder / name / "manifest.json").write_text("{}")
        (folder / "other" / "segments").mkdir(parents=True)  # a folder of somebody's own
        (folder / "other" / "manifest.json").write_text("{}")
        (folder / "other" / "segments" / "part.txt").write_text("S")
        found = [file.name for file in list_input_files(SourceOptions(str(folder)))]
        assert [name for name in found if "guides" not in name] == [
            *("a.md", "b.txt", "other/manifest.json", "other/segments/part.txt")
        ]
        assert "guides/stopped" not in str(found)
        assert "passed over 3 datastores (emptied, whole, guides/stopped)" in caplog.text
        for part in ("whole", "emptied"):
            with pytest.raises(SourceError, match="is a datastore, which is no source"):
                list_input_files(SourceOptions(str(folder / part)))

    def test_give_documents_ids_and_attributes_that_do_not_depend_on_where_they_are(self, folder):
        documents = {document.id: document for document in read(folder)}
        assert list(documents) == [
            "docs/a.md",
            "docs/b.txt",
            "docs/guides/z.html",
            "docs/guides/install/linux.txt",
        ]
        linux = documents["docs/guides/install/linux.txt"]
        assert linux.attributes == {
            "path": "guides/install/linux.txt",
            "folders": ["guides", "guides/install"],
            "format": "text",
        }
        assert (linux.title, linux.source, linux.text) == ("linux", "docs", "L")
        assert linux.origin == str(folder / "guides/install/linux.txt")
        moved = folder.rename(folder.parent / "elsewhere").rename(folder.parent / "sub")
        moved.rename(folder)
        assert {d.id: d.attributes for d in read(folder)} == {d.id: d.attributes for d in documents.values()}

    def test_can_be_the_current_one(self, folder, monkeypatch):
        monkeypatch.chdir(folder / "guides")
        assert [d.id for d in read(".")] == ["guides/z.html", "guides/install/linux.txt"]
        assert read(".")[0].source == "guides"

    def test_with_a_format_give_its_files_or_else_all_of_them(self, folder):
        names = [file.name for file in list_input_files(SourceOptions(str(folder), format="text"))]
        assert names == ["b.txt", "guides/install/linux.txt"]
        (folder / "logs").mkdir()
        (folder / "logs" / "part-0").write_text("log")
        assert [d.text for d in read(folder / "logs", format="text")] == ["log"]

    def test_do_not_follow_links_to_folders_but_read_linked_files(self, folder):
        (folder / "loop").symlink_to(folder)
        (folder / "link.txt").symlink_to(folder / "b.txt")
        (folder / "broken.txt").symlink_to(folder / "gone")
        assert [d.id for d in read(folder)][2] == "docs/link.txt"
        assert len(read(folder)) == 5

    def test_mix_records_and_files(self, folder):
        (folder / "c.jsonl").write_text('{"text": "C"}\n')
        assert [(d.text, d.source) for d in read(folder)][2] == ("C", "docs")

    def test_without_any_file_to_read_are_refused(self, tmp_path):
        (tmp_path / "x.png").write_text("")
        with pytest.raises(SourceError, match="holds no file of a known format"):
            read(tmp_path)

    def test_whose_names_are_not_utf8_are_read(self, tmp_path):
        try:
            (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        (document,) = read(tmp_path)
        assert document.attributes["path"] == "caf\ufffd.txt"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_that_cannot_be_read_are_refused(self, folder):
        (folder / "guides").chmod(0)
        try:
            with pytest.raises(SourceError, match="cannot be read"):
                read(folder)
        finally:
            (folder / "guides").chmod(0o755)


class TestPaths:
    def test_that_are_missing_are_refused(self, tmp_path):
        with pytest.raises(SourceError, match=r"gone\.jsonl cannot be read: No such file"):
            read(tmp_path / "gone.jsonl")
        with pytest.raises(SourceError, match="cannot be read: embedded null byte"):
            read("a\0b.jsonl")

    def test_of_unknown_suffix_need_a_format(self, tmp_path):
        with pytest.raises(
            SourceError, match=r"suffix '\.log'.* in a recipe, under \[\[sources\]\]: format = "
        ):
            read_file(tmp_path, "a.log", "x")
        assert read_file(tmp_path, "a.log", "x", format="text")[0].text == "x"

    def test_formats_are_checked(self, tmp_path):
        with pytest.raises(SourceError, match="unknown source format 'xml'"):
            read(tmp_path, format="xml")

    def test_suffixes_count_in_any_case(self, tmp_path):
        assert read_file(tmp_path, "A.TXT", "x")[0].title == "A"

    def test_that_vanish_while_being_read_are_refused(self, tmp_path, monkeypatch):
        for name in ("a.jsonl", "a.parquet", "a.txt"):
            path = tmp_path / name
            path.write_text("")
            found = list_input_files(SourceOptions(str(path)))
            path.unlink()
            monkeypatch.setattr("compactds.indexer.sources.reading.list_input_files", lambda _, f=found: f)
            with pytest.raises(SourceError, match=f"{name} cannot be read: .*o such file"):
                read(path)


class TestText:
    def test_is_one_document_with_its_name_as_id_and_title(self, tmp_path):
        (document,) = read_file(tmp_path, "my notes.txt", "One.\r\nTwo.\rThree.")
        assert (document.id, document.title, document.text) == (
            "my notes.txt",
            "my notes",
            "One.\nTwo.\nThree.",
        )
        assert document.source == "my notes"
        assert document.attributes == {"path": "my notes.txt", "folders": [], "format": "text"}

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    def test_is_decoded_by_its_byte_order_mark_or_as_utf8(self, tmp_path, encoding, caplog):
        assert read_file(tmp_path, "a.txt", "naïve 漢字".encode(encoding))[0].text == "naïve 漢字"
        assert caplog.text == ""

    def test_else_is_windows_1252_and_counted(self, tmp_path, caplog):
        for name in ("a.txt", "b.txt"):
            (tmp_path / name).write_bytes("“café”".encode("cp1252"))
        assert [d.text for d in read(tmp_path)] == ["“café”", "“café”"]
        assert "Read 2 files as Windows-1252" in caplog.text

    @pytest.mark.parametrize(
        "data",
        [b"%PDF-1.7", b"PK\x03\x04zip", b"\x1f\x8bgz", b"a\x00b", bytes(range(1, 32)) * 4, b"\x89PNG\r\n"],
    )
    def test_is_refused_if_it_is_binary(self, tmp_path, data):
        with pytest.raises(RecordError, match=r"a\.txt: binary data, not text"):
            read_file(tmp_path, "a.txt", data)

    @pytest.mark.parametrize(
        "data",
        [
            b"\xff\xfe\x00\x01garbage\x00\x9c",
            b"\xef\xbb\xbf" + b"na\xefve \xe9t\xe9 " * 9,
            b"\xff\xfe" + bytes(np.random.default_rng(1).integers(0, 256, 4000, np.uint8)),
        ],
    )
    @pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
    def test_is_refused_if_nothing_decodes_it(self, tmp_path, name, data):
        with pytest.raises(RecordError, match=rf"{name}: binary data, or text in an encoding .*--skip-inv"):
            read_file(tmp_path, name, data)
        documents, rejected = skipped(tmp_path)
        assert (documents, len(rejected)) == ([], 1)

    @pytest.mark.parametrize(
        "text", ["\x1b[1mbold\x1b[0m", "a\ufffd" + "word " * 9, "\ue000\ue001 icons", "é\x85"]
    )
    def test_stays_if_little_of_it_is_odd(self, tmp_path, text):
        assert read_file(tmp_path, "a.txt", text)[0].text == text

    def test_is_refused_if_it_is_empty_or_too_large(self, tmp_path, monkeypatch):
        with pytest.raises(RecordError, match=r"a\.txt: the text in 'text' is empty"):
            read_file(tmp_path, "a.txt", "")
        monkeypatch.setattr(texts, "MAX_DOCUMENT_BYTES", 10)
        with pytest.raises(RecordError, match="11 bytes in one document; at most 10"):
            read_file(tmp_path, "a.txt", "x" * 11)

    def test_broken_files_can_be_skipped(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"\x00")
        (tmp_path / "b.txt").write_text(" ")
        (tmp_path / "c.txt").write_text("C")
        documents, rejected = skipped(tmp_path)
        assert [d.text for d in documents] == ["C"]
        assert [(r.origin, r.reason) for r in rejected] == [
            (str(tmp_path / "a.txt"), "binary data, not text"),
            (str(tmp_path / "b.txt"), "no text in the file"),
        ]

    def test_files_are_not_subject_to_fields(self, tmp_path):
        assert read_file(tmp_path, "a.txt", "x", fields={"text": "body"})[0].text == "x"


class TestMarkdown:
    def test_becomes_plain_text(self):
        source = (
            "# The *Sun*\n\nIt [shines](http://x.y) on\n![a `map`](m.png), `code` & &lt;b>.\n\n"
            "> quoted\n\n- one\n- two\n\n```python\nx = 1\n\ny = 2\n```\n\n    indented\n\n"
            "<div>raw <b>html</b></div>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n---\n"
        )
        extracted = extract_markdown(source)
        assert extracted.title == "The Sun"
        assert extracted.text.split("\n\n") == [
            "The Sun",
            "It shines on\na map, code & <b>.",
            "quoted",
            "one",
            "two",
            "x = 1",
            "y = 2",
            "indented",
            "raw html",
            "a | b",
            "1 | 2",
        ]

    def test_front_matter_becomes_title_and_attributes(self, tmp_path):
        source = """---
# a comment
title: "A \\"good\\" day"   # another
author: 'O''Neil'
date: 2015-01-02
draft: true
nothing: ~
weight: 10
ratio: .5
bad_day: 2015-02-30
url: http://x.y/#z
tags: [a, "b, c", d]
years: [2015, 2016]
list:
  - one
  - 'two'
folded: >
  one
  two
literal: |
  one
  two
plain: starts
  and goes on
nested:
  key: value
anchor: &a x
open: [a,
  b]
broken: [a
id: mine
source: diary
---
Hello.
"""
        (document,) = read_file(tmp_path, "a.md", source)
        assert (document.id, document.title, document.source) == ("a.md", 'A "good" day', "diary")
        assert document.text == "Hello."
        assert document.attributes == {
            "author": "O'Neil",
            "date": date(2015, 1, 2),
            "draft": True,
            "nothing": None,
            "weight": 10,
            "ratio": 0.5,
            "bad_day": "2015-02-30",
            "url": "http://x.y/#z",
            "tags": ["a", "b, c", "d"],
            "years": [2015, 2016],
            "list": ["one", "two"],
            "folded": "one two",
            "literal": "one\ntwo",
            "plain": "starts and goes on",
            "open": ["a", "b"],
            "path": "a.md",
            "folders": [],
            "format": "markdown",
        }

    def test_front_matter_may_be_toml(self):
        extracted = extract_markdown('+++\ntitle = "T"\ndate = 2015-01-02\n[extra]\nyear = 2015\n+++\nText.')
        assert (extracted.title, extracted.text) == ("T", "Text.")
        assert extracted.attributes == {"date": date(2015, 1, 2), "extra": {"year": 2015}}

    @pytest.mark.parametrize(
        "source", ["---\nJust a rule.\n---\nText.", "+++\nno toml\n+++\nText.", "---\nopen: 1\n"]
    )
    def test_what_only_looks_like_front_matter_stays_text(self, source):
        extracted = extract_markdown(source)
        assert extracted.attributes == {}
        assert extracted.text

    def test_empty_front_matter_is_dropped(self):
        assert extract_markdown("---\n---\nText.").text == "Text."

    def test_the_title_is_the_first_heading_or_the_name(self, tmp_path):
        assert extract_markdown("text\n\nSetext\n===\n\n# Other").title == "Setext"
        assert read_file(tmp_path, "name.md", "text")[0].title == "name"

    @pytest.mark.parametrize("mark", [">", "- ", "[", "*", "`"])
    def test_hostile_nesting_ends_soon(self, mark):
        extract_markdown(mark * 5000 + "x")


class TestHtml:
    def test_becomes_blocks_of_text(self):
        page = (
            "<html><head><title> The\n Sun </title><style>p{}</style></head><body><nav>menu</nav>"
            "<header>top</header><h1>Sun</h1><p>It <b>shi</b>nes&nbsp;on<br>us.<script>x()</script></p>"
            "<div>one<div>two</div>three</div><ul><li>a<li>b</ul><pre>  x = 1\n  y</pre>"
            "<table><tr><th>k<th>v<tr><td>1<td>2</table><p hidden>no</p><!-- no --><template>no</template>"
            "<form>search</form><aside>side</aside><footer>end</footer></body></html>"
        )
        extracted = extract_html(page, "a.html")
        assert extracted.title == "The Sun"
        assert extracted.text.split("\n\n") == [
            "Sun",
            "It shines on\nus.",
            "one",
            "two",
            "three",
            "a",
            "b",
            "  x = 1\n  y",
            "k | v",
            "1 | 2",
        ]

    def test_the_main_element_is_the_text_if_there_is_one(self):
        assert extract_html("<p>before</p><main><p>main</p></main>", "").text == "main"

    def test_a_page_that_is_all_form_or_header_is_read_nevertheless(self):
        assert extract_html("<form><p>all</p></form>", "").text == "all"
        assert extract_html("<p>x</p><main></main>", "").text == "x"

    def test_meta_tags_become_attributes(self):
        page = (
            "<meta name=Description content=' about\n it '><meta name=keywords content='a, b,,'>"
            "<meta name=author content=Ann><meta name=author content=Bob><meta name=date content=2015-01-02>"
            "<meta name=viewport content=x><meta name=generator content=y><p>t"
        )
        assert extract_html(page, "").attributes == {
            "description": "about it",
            "keywords": ["a", "b"],
            "author": "Ann",
            "date": date(2015, 1, 2),
        }
        for day in ("soon", "2015-02-30"):
            assert extract_html(f"<meta name=date content={day}>", "").attributes == {"date": day}

    def test_the_title_is_the_first_heading_or_the_name_without_a_title(self, tmp_path):
        assert extract_html("<h1>A <i>b</i></h1>", "").title == "A b"
        assert read_file(tmp_path, "a.html", "<p>x")[0].title == "a"

    @pytest.mark.parametrize(
        ("head", "encoding"),
        [
            ("<meta charset=windows-1251>", "cp1251"),
            ("<meta http-equiv=Content-Type content='text/html; charset=ISO-8859-1'>", "cp1252"),
            ("<meta charset='iso-2022-jp'>", "iso-2022-jp"),
            ("<meta charset=nonsense>", "cp1252"),
            ("", "utf-8"),
            ("<meta charset=hex>", "utf-8"),
        ],
    )
    def test_the_encoding_a_page_declares_is_used(self, tmp_path, head, encoding):
        text = {"cp1251": "Привет", "iso-2022-jp": "漢字"}.get(encoding, "“café”")
        assert read_file(tmp_path, "a.html", (head + f"<p>{text}").encode(encoding))[0].text == text

    def test_hostile_nesting_is_refused(self, tmp_path):
        with pytest.raises(RecordError, match=r"a\.html: elements are nested more than 4,000 deep"):
            read_file(tmp_path, "a.html", "<div>" * 5000 + "x")
        assert extract_html("<div>" * 3000 + "x" + "</div>" * 3000, "").text == "x"
        assert extract_markdown("<div>" * 5000 + "x\n\ntext").text == "text"

    def test_an_empty_page_is_refused(self, tmp_path):
        with pytest.raises(RecordError, match="is empty"):
            read_file(tmp_path, "a.html", "<script>x</script>")
        with pytest.raises(RecordError, match="is empty"):
            read_file(tmp_path, "a.html", "<frameset><frame></frameset>")


def pdf(*pages, password=None, **metadata):
    """A PDF with one line of text after another on each page."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(300, 300)
        font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
        fonts = DictionaryObject({NameObject(k): NameObject(v) for k, v in font.items()})
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): fonts})}
        )
        lines = " ".join(f"({line}) Tj 0 -20 Td" for line in text.split("\n"))
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 250 Td {lines} ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    if metadata:
        writer.add_metadata({f"/{key}": value for key, value in metadata.items()})
    if password is not None:
        writer.encrypt(password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


class TestPdf:
    def test_becomes_text_with_metadata(self, tmp_path):
        data = pdf(
            "Stars shine be-\ncause.",
            "Page two.",
            Title="Sun",
            Author="Ann",
            CreationDate="D:20150102100000Z",
        )
        (document,) = read_file(tmp_path, "a.pdf", data)
        assert (document.title, document.text) == ("Sun", "Stars shine because.\n\nPage two.")
        assert document.attributes == {
            "author": "Ann",
            "date": date(2015, 1, 2),
            "pages": 2,
            "path": "a.pdf",
            "folders": [],
            "format": "pdf",
        }

    def test_without_metadata_takes_the_name_as_title(self, tmp_path):
        (document,) = read_file(tmp_path, "a.pdf", pdf("x"))
        assert document.title == "a"
        assert "author" not in document.attributes

    def test_broken_metadata_does_not_matter(self, tmp_path):
        (document,) = read_file(tmp_path, "a.pdf", pdf("x", CreationDate="yesterday", Author=" "))
        assert set(document.attributes) == {"pages", "path", "folders", "format"}

    def test_that_opens_without_a_password_is_read(self, tmp_path):
        assert read_file(tmp_path, "a.pdf", pdf("x", password=""))[0].text == "x"

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "damaged or unreadable PDF"),
            (b"%PDF-1.7 nothing else", "damaged or unreadable PDF"),
            (b"no pdf at all", "damaged or unreadable PDF"),
        ],
    )
    def test_damaged_ones_are_refused(self, tmp_path, data, reason, caplog):
        caplog.set_level(logging.CRITICAL, "pypdf")
        with pytest.raises(RecordError, match=rf"a\.pdf: {reason}"):
            read_file(tmp_path, "a.pdf", data)

    def test_nothing_but_the_error_tells_of_a_damaged_one(self, tmp_path, caplog):
        with pytest.raises(RecordError, match=r"a\.pdf: damaged or unreadable PDF"):
            read_file(tmp_path, "a.pdf", b"%PDF-1.7 nothing else")
        assert caplog.text == ""

    def test_encrypted_ones_and_those_without_text_are_refused(self, tmp_path):
        with pytest.raises(RecordError, match=r"a\.pdf: it is encrypted"):
            read_file(tmp_path, "a.pdf", pdf("x", password="secret"))
        with pytest.raises(RecordError, match=r"a\.pdf: a PDF of 1 pages without text.*text recognition"):
            read_file(tmp_path, "a.pdf", pdf(""))


class TestCsv:
    def test_rows_become_records_of_text(self, tmp_path):
        data = '\ufeffid,text,year,note\r\n1,"Hi, ""you""",2015,\r\n\r\n2,"two\r\nlines",2016,x\r\n'
        first, second = read_file(tmp_path, "a.csv", data)
        assert (first.id, first.text, first.attributes) == ("1", 'Hi, "you"', {"year": "2015", "note": None})
        assert second.text == "two\nlines"
        assert first.attributes_are_text
        assert [d.origin for d in (first, second)] == [f"{tmp_path / 'a.csv'}:{n}" for n in (2, 5)]
        inference = AttributeInference()
        inference.observe(first)
        inference.observe(second)
        assert inference.schema().to_json() == {"note": "string", "year": "int64"}

    @pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", ",")])
    def test_separators_are_told_by_suffix_or_header(self, tmp_path, name, mark):
        (document,) = read_file(tmp_path, name, f"text{mark}b\nx{mark}y\n")
        assert document.attributes == {"b": "y"}

    def test_columns_without_a_name_are_left_out(self, tmp_path):
        assert read_file(tmp_path, "a.csv", ",text\n0,x\n")[0].attributes == {}

    def test_texts_longer_than_the_library_allows_are_read(self, tmp_path):
        assert len(read_file(tmp_path, "a.csv", "text\n" + "x" * 200_000)[0].text) == 200_000

    def test_an_empty_file_has_no_documents(self, tmp_path):
        assert read_file(tmp_path, "a.csv", "") == []
        assert read_file(tmp_path, "a.csv", "text\n") == []

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"text,b\nx\n", ":2: 1 values in a row, but the header names 2 columns"),
            (b"text,b\nx,y,z\n", ":2: 3 values in a row"),
            (b"text\n\xff\n", ":2: invalid UTF-8"),
            (b'text\n"open\n', ":2: invalid csv: unexpected end of data"),
            (b'text\n"a"b\n', ":2: invalid csv"),
            (b"id,text\n1,\n", ":2: the text in 'text' is empty"),
        ],
    )
    def test_broken_rows_are_refused(self, tmp_path, data, reason):
        with pytest.raises(RecordError, match=rf"a\.csv{reason}"):
            read_file(tmp_path, "a.csv", data)

    def test_broken_rows_can_be_skipped(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b'id,text\n1,a\n2\n3,\xff\n4,"x"y\n5,b\n')
        documents, rejected = skipped(tmp_path / "a.csv")
        assert [d.id for d in documents] == ["1", "5"]
        assert [r.raw for r in rejected] == ["2\r\n", "3,?\r\n", '4,"x"y']

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"id,title\n1,x\n", "has no column 'text' or 'contents' or 'content' or 'body' for text"),
            (b"text,a,a\nx,1,2\n", "names 'a' more than once"),
            ("text\nx\n".encode("utf-16"), "is not UTF-8"),
        ],
    )
    def test_a_header_that_cannot_be_used_is_refused(self, tmp_path, data, reason):
        with pytest.raises(SourceError, match=reason):
            read_file(tmp_path, "a.csv", data, skip_invalid=True)

    def test_a_named_column_must_be_there(self, tmp_path):
        with pytest.raises(SourceError, match="no column 'pmid' for id"):
            read_file(tmp_path, "a.csv", "text\nx\n", fields={"id": "pmid"})


class TestParquet:
    def write(self, tmp_path, columns, **options):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table(columns), path, **options)
        return path

    def test_columns_keep_their_types(self, tmp_path):
        moment = datetime(2015, 1, 2, 10, tzinfo=UTC)
        path = self.write(
            tmp_path,
            {
                "id": [1, 2],
                "text": ["a", "b"],
                "day": pa.array([date(2015, 1, 2), None]),
                "moment": pa.array([moment, None], pa.timestamp("ns", "UTC")),
                "length": pa.array([1_500_000_000, None], pa.duration("ns")),
                "hour": pa.array([3_600_000_000_000, None], pa.time64("ns")),
                "tags": [["x", "y"], []],
                "meta": [{"year": 2015, "n": None}, {"year": None, "n": None}],
                "raw": [b"x", b"y"],
                "score": [float("nan"), 1.5],
                "price": pa.array([Decimal("1.00"), None]),
                "kind": pa.array(["p", "q"]).dictionary_encode(),
                "stamps": pa.array([[moment], []], pa.list_(pa.timestamp("us", "UTC"))),
                "blobs": [[b"x"], []],
                "seconds": pa.array([1, None], pa.duration("s")),
                "pairs": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
            },
        )
        first, second = read(path)
        assert (first.id, first.text, first.origin) == ("1", "a", f"{path}: row 1")
        assert first.attributes == {
            "day": date(2015, 1, 2),
            "moment": moment,
            "length": 1.5,
            "hour": "01:00:00",
            "tags": ["x", "y"],
            "meta.year": 2015,
            "meta.n": None,
            "raw": None,
            "score": None,
            "price": 1.0,
            "kind": "p",
            "stamps": '["2015-01-02T10:00:00+00:00"]',
            "blobs": "[null]",
            "seconds": 1.0,
            "pairs": '[["k",1]]',
        }
        assert second.attributes["score"] == 1.5

    @pytest.mark.parametrize(
        "kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.list_(pa.int16())]
    )
    def test_a_list_column_can_be_the_vector(self, tmp_path, kind):
        path = self.write(tmp_path, {"text": ["", "b"], "v": pa.array([[1, 2], [3, 4]], kind)})
        documents = read(path, fields={"vector": "v"})
        assert [d.vector.tolist() for d in documents] == [[1, 2], [3, 4]]
        assert documents[0].vector.dtype == np.float32
        assert documents[0].attributes == {}

    def test_a_row_without_its_vector_is_refused(self, tmp_path):
        path = self.write(tmp_path, {"text": ["a", "b"], "v": [[1.0], None]})
        with pytest.raises(RecordError, match=r"row 2: no vector: 'v' is missing"):
            read(path, fields={"vector": "v"})
        path = self.write(tmp_path, {"text": ["a"], "v": ["no list"]})
        documents, rejected = skipped(path, fields={"vector": "v"})
        assert documents == []
        assert "must be a list of numbers" in rejected[0].reason

    def test_a_vector_with_nulls_is_refused(self, tmp_path):
        path = self.write(tmp_path, {"text": ["a"], "v": [[1.0, None]]})
        with pytest.raises(RecordError, match="holds NaN"):
            read(path, fields={"vector": "v"})
        documents, rejected = skipped(path, fields={"vector": "v"})
        assert documents == []
        assert rejected[0].raw == '{"text":"a"}'

    def test_only_columns_that_are_wanted_are_read(self, tmp_path, monkeypatch):
        path = self.write(tmp_path, {"text": ["a"], "keep": [1], "drop": [2], "m": [{"x": 1, "y": 2}]})
        seen = []
        whole = pq.ParquetFile.iter_batches
        monkeypatch.setattr(
            pq.ParquetFile,
            "iter_batches",
            lambda self, *args, **named: seen.append(named["columns"]) or whole(self, *args, **named),
        )
        assert read(path, attributes=("keep", "m.x"))[0].attributes == {"keep": 1, "m.x": 1}
        assert seen == [["text", "keep", "m"]]

    def test_rows_beyond_one_batch_are_numbered_on(self, tmp_path):
        path = self.write(tmp_path, {"text": [str(n) for n in range(700)]}, row_group_size=100)
        assert read(path)[-1].origin == f"{path}: row 700"

    def test_dates_python_cannot_hold_are_refused_by_row(self, tmp_path):
        days = pa.array([0, 100_000_000], pa.int32()).cast(pa.date32())
        path = self.write(tmp_path, {"text": ["a", "b"], "day": days})
        documents, rejected = skipped(path)
        assert [d.text for d in documents] == ["a"]
        assert rejected[0].origin == f"{path}: row 2"
        assert "outside the years 1 to 9999" in rejected[0].reason

    def test_damaged_files_are_refused(self, tmp_path):
        with pytest.raises(RecordError, match=r"a\.parquet: damaged or truncated file"):
            read_file(tmp_path, "a.parquet", b"PAR1 nothing")

    def test_text_that_is_not_utf8_is_refused_by_row(self, tmp_path):
        path = self.write(tmp_path, {"text": pa.array([b"a", b"\xff"]).view(pa.string())})
        with pytest.raises(RecordError, match=r"a\.parquet: row 2: invalid UTF-8"):
            read(path)

    def test_names_of_columns_that_are_not_utf8_are_refused(self, tmp_path):
        data = self.write(tmp_path, {"text": ["a"], "zzzz": [1]}, store_schema=False).read_bytes()
        with pytest.raises(RecordError, match=r"a\.parquet: damaged or truncated file"):
            read_file(tmp_path, "a.parquet", data.replace(b"zzzz", b"\xff\xff\xff\xff"))

    def test_a_table_without_text_is_refused(self, tmp_path):
        with pytest.raises(SourceError, match="has no column 'text'"):
            read(self.write(tmp_path, {"a": [1]}))

    def test_nested_fields_can_be_named(self, tmp_path):
        path = self.write(tmp_path, {"doc": [{"body": "x", "n": 1}]})
        assert read(path, fields={"text": "doc.body"})[0].attributes == {"doc.n": 1}


def test_no_attribute_of_a_missing_source_is_needed_to_name_it():
    assert SourceOptions("gone/notes.jsonl.gz").source_name == "notes"
    assert SourceOptions("gone/notes.jsonl.gz", name="n").source_name == "n"


class Examples(list):
    column_names = ["text", "year"]  # noqa: RUF012


class TestHub:
    def install(self, monkeypatch, load_dataset):
        module = ModuleType("datasets")
        module.load_dataset = load_dataset
        monkeypatch.setitem(sys.modules, "datasets", module)

    def test_examples_are_streamed(self, monkeypatch):
        calls = []

        def load_dataset(*args, **named):
            calls.append((args, named))
            return Examples([{"text": "a", "year": 2015}, {"text": "b", "year": None}])

        self.install(monkeypatch, load_dataset)
        first, second = read("hf:owner/name", config="en", split="test", revision="v1", files="a/*")
        named = {"data_files": "a/*", "split": "test", "revision": "v1", "streaming": True}
        assert calls == [(("owner/name", "en"), named)]
        assert (first.text, first.attributes, first.source) == ("a", {"year": 2015}, "owner/name")
        assert second.origin == "hf:owner/name[test]: row 2"
        assert list_input_files(SourceOptions("hf:owner/name")) == []

    def test_a_name_that_is_no_path_here_is_a_dataset(self, monkeypatch, tmp_path):
        self.install(monkeypatch, lambda *_, **__: Examples([{"text": "a"}]))
        monkeypatch.chdir(tmp_path)
        assert read("owner/name")[0].text == "a"
        (tmp_path / "owner" / "name").mkdir(parents=True)
        (tmp_path / "owner" / "name" / "x.txt").write_text("local")
        assert read("owner/name")[0].text == "local"

    def test_a_missing_file_is_no_dataset(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SourceError, match=r"docs/notes\.jsonl cannot be read"):
            read("docs/notes.jsonl")

    def test_without_the_package_the_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(SourceError, match=r"^reading a .*python -m pip install 'compactds\[huggingf"):
            read("hf:owner/name")

    def test_a_path_that_is_missing_is_said_before_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(SourceError, match=r"^There is no file or folder 'mistyped/repo' here\. Reading"):
            read("mistyped/repo")

    @pytest.mark.parametrize("error", [ValueError("no config"), OSError("offline"), RuntimeError()])
    def test_what_goes_wrong_at_the_hub_is_told(self, monkeypatch, error):
        def load_dataset(*_, **__):
            raise error

        self.install(monkeypatch, load_dataset)
        with pytest.raises(
            SourceError, match=r"no file or folder 'owner/name' here\. hf:owner/name\[train\] cannot be read"
        ):
            read("owner/name")

    def test_a_dataset_without_text_is_refused(self, monkeypatch):
        examples = Examples()
        examples.column_names = ["a"]
        self.install(monkeypatch, lambda *_, **__: examples)
        with pytest.raises(SourceError, match="has no column 'text'"):
            read("hf:owner/name")

    def test_a_dataset_that_does_not_tell_its_columns_is_read(self, monkeypatch):
        examples = Examples([{"text": "a"}])
        examples.column_names = None
        self.install(monkeypatch, lambda *_, **__: examples)
        assert len(read("hf:owner/name")) == 1

    def test_the_real_package_reads_local_files(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        pytest.importorskip("datasets")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "train.jsonl").write_text(
            '{"text": "a", "year": 2015}\n{"text": "b", "year": null}\n'
        )
        documents = read(f"hf:{tmp_path / 'data'}")
        assert [(d.text, d.attributes) for d in documents] == [("a", {"year": 2015}), ("b", {"year": None})]


class TestCommits:
    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture
    def asked(self, monkeypatch):
        """Take the place of the hub: what it is asked, and what it answers."""
        questions = []

        def ask(name, revision):
            questions.append((name, revision))
            return self.COMMIT

        monkeypatch.setattr("compactds.indexer.sources.hub._ask_for_commit", ask)
        return questions

    @pytest.mark.parametrize("revision", [None, "main", "v1", "0123456"])
    def test_the_hub_is_asked_what_a_revision_is_now(self, asked, revision):
        assert hub_commit(SourceOptions("hf:owner/name", revision=revision)) == self.COMMIT
        assert asked == [("owner/name", revision)]

    def test_a_commit_is_what_it_is(self, asked):
        commit = "f" * 40
        assert hub_commit(SourceOptions("hf:owner/name", revision=commit)) == commit
        assert asked == []

    def test_a_folder_has_none(self, asked, tmp_path):
        assert hub_commit(SourceOptions(f"hf:{tmp_path}")) is None
        assert asked == []

    @pytest.mark.parametrize("error", [OSError("offline"), ValueError("no such name"), ImportError("hub")])
    def test_a_hub_that_is_silent_is_no_error_yet(self, monkeypatch, error):
        def fail(*_):
            raise error

        monkeypatch.setattr("compactds.indexer.sources.hub._ask_for_commit", fail)
        assert hub_commit(SourceOptions("hf:owner/name")) is None

    def test_the_real_package_is_asked_in_its_own_words(self, monkeypatch):
        hub = pytest.importorskip("huggingface_hub")
        calls = []

        def dataset_info(_, repo_id, *, revision=None, timeout=None):
            calls.append((repo_id, revision, timeout))
            return hub.DatasetInfo(
                id=repo_id, sha=self.COMMIT, private=False, downloads=0, likes=0, tags=[], disabled=False
            )

        inspect.signature(hub.HfApi.dataset_info).bind(None, "owner/name", revision="v1", timeout=1.0)
        monkeypatch.setattr(hub.HfApi, "dataset_info", dataset_info)
        assert hub_commit(SourceOptions("hf:owner/name", revision="v1")) == self.COMMIT
        assert calls == [("owner/name", "v1", 30.0)]
