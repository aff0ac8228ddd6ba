from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kvharness.errors import DataProblem, UsageProblem
from kvharness.items.real.draw import SUMMARY_REQUEST, load_items
from kvharness.items.real.files import read_records
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvharness.items.item import Item, Question

    Load = Callable[..., list[Item]]
    Write = Callable[..., Path]

TOWNS = ["Ambry", "Bexton", "Caddis", "Dorley", "Enfold", "Fennick", "Garmouth", "Hale Öst"]


def _document(number: int) -> str:
    town = TOWNS[number % len(TOWNS)]
    return (
        f"Report {number} is about {town}. The mill at {town} ground {100 + number} sacks. "
        f"Nobody recalls who built it — perhaps monks."
    )


CORPUS = [_document(number) for number in range(40)]


def _encoder(*, chat: bool) -> Encoder:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")  # noqa: S106 - a token of text
    if chat:
        fast.chat_template = "{{ 'user: ' + messages[0]['content'] + '\nreply:\n' }}"
    return Encoder(fast)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return _encoder(chat=True)


@pytest.fixture(scope="module")
def load(encoder: Encoder) -> Load:
    def call(source: Path | str, **options: Any) -> list[Item]:
        defaults = {"suite": "qa", "encoder": encoder, "context": 300, "seed": 0, "count": 2}
        return load_items(str(source), **{**defaults, **options})

    return call


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(rows: Sequence[Any], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            datasets.Dataset.from_list(list(rows)).to_parquet(path)
        elif path.suffix == ".json":
            path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        else:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return to_file


def _squad_rows(count: int = 12) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        context = _document(number)
        for answer in (TOWNS[number % len(TOWNS)], str(100 + number)):
            found = {"text": [answer, f"{answer} "], "answer_start": [context.index(answer)] * 2}
            rows.append({"context": context, "question": f"Which {number}?", "answers": found})
    return rows


def _hotpot_rows(count: int = 8) -> list[dict[str, Any]]:
    return [
        {
            "question": f"What ground {number}?",
            "answer": f"{100 + number} sacks",
            "supporting_facts": [[f"Mill {number}", 1], [f"Town {number}", 0]],
            "context": [
                [f"Town {number}", [f"{TOWNS[number % 8]} is small.", " It rains."]],
                [f"Inn {number}", ["The inn is shut."]],
                [f"Mill {number}", ["It turns.", f" It ground {100 + number} sacks."]],
            ],
        }
        for number in range(count)
    ]


def _hub_hotpot_rows(count: int = 8) -> list[dict[str, Any]]:
    return [
        {
            **row,
            "context": {
                "title": [title for title, _ in row["context"]],
                "sentences": [sentences for _, sentences in row["context"]],
            },
            "supporting_facts": {
                "title": [title for title, _ in row["supporting_facts"]],
                "sent_id": [sentence for _, sentence in row["supporting_facts"]],
            },
        }
        for row in _hotpot_rows(count)
    ]


def _own_rows(count: int = 6) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        first, second = _document(number), _document(number + 20)
        question = {
            "question": f"How many {number}?",
            "answers": [f"{120 + number}", "many"],
            "evidence": [f"ground {120 + number} sacks"],
            "answer_prefix": "It ground",
        }
        rows.append({"context": [first, second], "questions": [question]})
    return rows


def _longbench_rows(count: int = 6, *, asked: str = "") -> list[dict[str, Any]]:
    return [
        {
            "input": asked,
            "context": f"{_document(number)}\n{_document(number + 9)}",
            "answers": [f"Mills of {TOWNS[number]}."],
            "length": 40,
            "dataset": "gov_report",
            "all_classes": None,
            "_id": str(number),
        }
        for number in range(count)
    ]


def _evidence(item: Item, question: Question, encoder: Encoder) -> list[str]:
    return [encoder.text(item.context[start:end]) for start, end in question.evidence]


@pytest.mark.parametrize("name", ["s.jsonl", "s.json", "s.parquet", "odd [1] *.jsonl"])
def test_squad_asks_all_questions_of_a_context(
    write: Write, load: Load, encoder: Encoder, name: str
) -> None:
    items = load(write(_squad_rows(), name), count=6)
    assert [item.name for item in items][:2] == ["qa-s0-00", "qa-s0-01"]
    for item in items:
        assert item.variant == "squad"
        assert len(item.questions) == 2
        for question in item.questions:
            assert question.references == (question.reference,)
            assert encoder.text(question.answer) == question.reference
            assert question.slots == ((0, len(question.answer)),)
            assert question.max_new_tokens == 32
            [evidence] = _evidence(item, question, encoder)
            assert question.reference in evidence
            assert len(evidence) <= len(question.reference) + 2


def test_squad_skips_unanswerable_and_keeps_eight(write: Write, load: Load) -> None:
    nothing: dict[str, list[Any]] = {"text": [], "answer_start": []}
    unanswerable = [
        {"context": "Nothing is known.", "question": "?", "answers": nothing},
        {**_squad_rows(1)[0], "answers": nothing},
    ]
    [item] = load(write([*unanswerable, *_squad_rows(1) * 5]), count=1)
    assert len(item.questions) == 8


def test_contexts_are_whole_documents_within_the_limit(
    write: Write, load: Load, encoder: Encoder
) -> None:
    path = write(_squad_rows(30))
    known = {_document(number) for number in range(30)}
    for context in (120, 300, 700):
        for item in load(path, count=5, context=context):
            documents = item.text.split("\n\n")
            assert set(documents) <= known
            assert len(set(documents)) == len(documents)
            assert len(item.context) <= context
            assert len(item.context) > context - 60
            assert item.context == (*encoder.head, *encoder.ids(item.text))
    [item] = load(path, count=1, context=300, reserve=100)
    assert len(item.context) <= 200


def test_distractors_that_grow_when_joined_give_way(write: Write, load: Load) -> None:
    class Optimist(Encoder):
        def ids(self, text: str) -> tuple[int, ...]:
            ids = super().ids(text)
            return ids[: len(ids) // 2] if text.startswith("\n\nReport") else ids

    path = write(_squad_rows(30))
    for item in load(path, encoder=Optimist(_encoder(chat=True).tokenizer), count=5):
        assert 200 < len(item.context) <= 300


def test_gold_documents_are_not_always_first(write: Write, load: Load) -> None:
    items = load(write(_squad_rows(30)), count=12, context=500)
    depths = [item.questions[0].evidence[0][0] / len(item.context) for item in items]
    assert min(depths) < 0.3
    assert max(depths) > 0.6


def test_draws_are_deterministic_and_seeds_disjoint(write: Write, load: Load) -> None:
    path = write(_squad_rows(12))
    draws = [load(path, seed=seed, count=3) for seed in range(4)]
    assert draws == [load(path, seed=seed, count=3) for seed in range(4)]
    asked = [item.questions[0].text for items in draws for item in items]
    assert len(set(asked)) == 12
    assert [item.questions[0].text for item in load(path, count=12)] == asked
    assert [item.questions[0].text for item in load(path, count=12, suite="other")] != asked


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (_hotpot_rows(), "pairs.jsonl"),
        (_hotpot_rows(), "pairs.json"),
        (_hub_hotpot_rows(), "lists.jsonl"),
        (_hub_hotpot_rows(), "lists.parquet"),
    ],
)
def test_hotpot_evidence_is_the_supporting_sentences(
    write: Write, load: Load, encoder: Encoder, rows: Any, name: str
) -> None:
    for item in load(write(rows, name), count=8, context=150):
        [question] = item.questions
        number = int(question.text.split()[-1].strip("?"))
        mill, town = _evidence(item, question, encoder)
        assert mill.strip() == f"It ground {100 + number} sacks."
        assert town.strip() == f"{TOWNS[number % 8]} is small."
        assert f"Mill {number}: It turns. It ground {100 + number} sacks." in item.text
        assert "Inn" in item.text


def test_hotpot_rows_without_their_facts_are_left_out(write: Write, load: Load) -> None:
    rows = _hotpot_rows(4)
    rows[0]["supporting_facts"] = [["Elsewhere", 0]]
    rows[1]["supporting_facts"] = [["Mill 1", 7]]
    rows[2]["supporting_facts"] = []
    [item] = load(write(rows), count=1)
    assert item.questions[0].text == "What ground 3?"
    with pytest.raises(DataProblem, match="1 contexts with questions; 2 items of seed 0 need 2"):
        load(write(rows), count=2)


def test_longbench_summaries_stand_alone(write: Write, load: Load) -> None:
    for item in load(write(_longbench_rows()), suite="summarization", context=1000):
        assert item.variant == "gov_report"
        assert item.text in {row["context"] for row in _longbench_rows()}
        [question] = item.questions
        assert question.text == SUMMARY_REQUEST
        assert question.evidence == ()
        assert question.max_new_tokens == 128


def test_longbench_questions(write: Write, load: Load) -> None:
    path = write(_longbench_rows(asked="Which mill?"))
    assert load(path)[0].questions[0].text == "Which mill?"
    with pytest.raises(DataProblem, match=r"line \d: asks nothing.*summarization"):
        load(write(_longbench_rows()))


def test_own_layout_with_quotes_and_a_prefix(write: Write, load: Load, encoder: Encoder) -> None:
    for item in load(write(_own_rows()), count=6, context=160):
        [question] = item.questions
        number = int(question.text.split()[-1].strip("?"))
        assert _evidence(item, question, encoder)[0].strip() == f"ground {120 + number} sacks"
        assert encoder.text(question.tail) == "\nreply:\nIt ground"
        assert encoder.text(question.answer) == f" {120 + number}"
        assert question.references == (str(120 + number), "many")
        assert _document(number + 20) in item.text


def test_own_layout_with_offsets_dates_and_no_evidence(
    write: Write, load: Load, encoder: Encoder
) -> None:
    context = "Hale Öst burned down. The — fire — was on 2020-01-31 at noon."
    start = context.index("2020")
    questions = [
        {"question": "When?", "answers": ["2020-01-31"], "evidence": [[start, start + 10]]},
        {"question": "Where?", "answers": ["Hale Öst"], "evidence": None},
    ]
    [item] = load(write([{"context": context, "questions": questions}]), count=1)
    when, where = item.questions
    assert when.reference == "2020-01-31"
    assert _evidence(item, when, encoder)[0].strip() == "2020-01-31"
    assert where.evidence == ()


def test_without_evidence_all_documents_of_a_row_are_gold(
    write: Write, load: Load, encoder: Encoder
) -> None:
    one = len(encoder.head) + max(len(encoder.ids(document)) for document in CORPUS)
    rows = _own_rows()
    rows[0]["questions"].append({"question": "Why?", "answers": ["so"]})
    assert len(load(write(_own_rows()), count=6, context=one)) == 6
    with pytest.raises(DataProblem, match="5 of 6 contexts fit in"):
        load(write(rows), count=6, context=one)


def test_own_layout_summaries_keep_all_documents_in_order(write: Write, load: Load) -> None:
    for item in load(write(_own_rows()), suite="summarization"):
        number = int(item.questions[0].text.split()[-1].strip("?"))
        assert item.text == f"{_document(number)}\n\n{_document(number + 20)}"


def test_a_base_models_answer_begins_with_a_space(write: Write, load: Load) -> None:
    plain = _encoder(chat=False)
    [item] = load(write(_squad_rows()), encoder=plain, count=1)
    question = item.questions[0]
    assert plain.text(question.tail) == "\nAnswer:"
    assert plain.text(question.answer) == f" {question.reference}"
    assert item.context[0] == plain.tokenizer.bos_token_id


def test_a_folder_is_all_its_files_and_stays_clean(
    write: Write, load: Load, tmp_path: Path
) -> None:
    rows = _squad_rows(6)
    write(rows[:4], "a.jsonl")
    write(rows[4:8], "b.parquet")
    write(rows[8:], "c.json")
    before = sorted(tmp_path.rglob("*"))
    assert len(load(tmp_path, count=6)) == 6
    assert sorted(tmp_path.rglob("*")) == before


def test_a_byte_order_mark_and_blank_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert [row for _, row in read_records(str(path))] == [{"a": 1}, {"a": 2}]
    assert [name[-6:] for name, _ in read_records(str(path))] == ["line 1", "line 3"]


def test_rows_that_run_out(write: Write, load: Load) -> None:
    path = write(_squad_rows(5))
    with pytest.raises(DataProblem, match="5 contexts with questions; 3 items of seed 1 need 6"):
        load(path, count=3, seed=1)


def test_the_shortest_context_that_would_do(write: Write, load: Load) -> None:
    path = write(_longbench_rows())
    options: dict[str, Any] = {"suite": "summarization", "count": 4, "reserve": 7}
    with pytest.raises(DataProblem, match=r"0 of 6 contexts fit in 50 tokens") as caught:
        load(path, context=50, **options)
    shortest = int(str(caught.value).split("at least ")[1].split(",")[0])
    assert len(load(path, context=shortest, **options)) == 4
    with pytest.raises(DataProblem, match="of 6 contexts fit"):
        load(path, context=shortest - 1, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evidence": ["no such words"]}, "question 1: 'evidence' is 'no such words'"),
        ({"evidence": [[0, 10_000]]}, "or \\[start, end\\] within its"),
        ({"evidence": [[3, 3]]}, "question 1: 'evidence' is \\[3, 3\\]"),
        ({"evidence": "quote"}, "expected a list of quotes"),
        ({"answers": []}, "'answers' is \\[\\]; expected a list of at least one text"),
        ({"answers": [12]}, "'answers' is \\[12\\]; expected a list"),
        ({"answers": "12"}, "'answers' is '12'; expected a list"),
        ({"question": " "}, "'question' is ' '; expected text"),
        ({"answer_prefix": 3}, "'answer_prefix' is 3; expected text"),
    ],
)
def test_own_rows_that_are_wrong_are_named(
    write: Write, load: Load, change: dict[str, Any], message: str
) -> None:
    question = {"question": "Why?", "answers": ["so"], **change}
    rows = [*_own_rows(1), {"context": _document(3), "questions": [question]}]
    with pytest.raises(DataProblem, match=f"data.jsonl line 2, .*{message}"):
        load(write(rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"context": 3, "questions": []}, "line 1: 'context' is 3; expected a list"),
        ({"context": ["x", " "], "questions": []}, "'context' is \\['x', ' '\\]"),
        ({"context": "x", "questions": []}, "'questions' is \\[\\]; expected a list"),
        ({"context": "x", "questions": ["?"]}, "'question' is '\\?'; expected an object"),
        ({"context": "x", "question": "?", "answers": ["x"]}, "text and answer_start"),
        (
            {"context": "x", "question": "?", "answers": {"text": ["y"], "answer_start": [0]}},
            "line 1: 'answers' is 'y'; expected a quote",
        ),
        (
            {"context": "x", "question": "?", "answer": "y", "supporting_facts": []},
            "'context' is 'x'; expected an object of two equally long lists, title and sent",
        ),
        ({"input": 3, "context": "x", "answers": ["y"]}, "'input' is 3; expected text"),
        ({"input": "?", "context": "x", "answers": None}, "'answers' is None; expected a list"),
    ],
)
def test_rows_that_break_their_layout(
    write: Write, load: Load, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataProblem, match=message):
        load(write([row]))


def test_offsets_need_one_text(write: Write, load: Load) -> None:
    rows = _own_rows(1)
    rows[0]["questions"][0]["evidence"] = [[0, 4]]
    with pytest.raises(DataProblem, match=r"expected a quote from the context\. Correct"):
        load(write(rows))


def test_an_unknown_layout_lists_columns_and_layouts(write: Write, load: Load) -> None:
    with pytest.raises(DataProblem) as caught:
        load(write([{"passage": "x", "query": "y"}]))
    message = str(caught.value)
    assert "the columns are passage, query;" in message
    for layout in ("kvharness (context, questions)", "SQuAD", "HotpotQA", "LongBench"):
        assert layout in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"context": "x"}\n{"context":\n', "x.jsonl line 2: is not JSON"),
        ("x.jsonl", "[1, 2]\n", "line 1: is no object"),
        (
            "x.jsonl",
            '{"context": "x \\ud800", "questions": [{"question": "y", "answers": ["z"]}]}',
            r"x.jsonl line 1: .ud800 is half of a surrogate pair, expected Unicode text",
        ),
        ("x.json", '{"context": "x"}\n{"context": "y"}\n', "x.json: is not JSON .Extra data"),
        ("x.json", "[null]", "row 1: is no object"),
        ("x.json", "[]", "is empty"),
        ("x.jsonl", "", "is empty"),
        ("x.jsonl", " \n\n", "is empty"),
        ("x.parquet", "hello", "x.parquet: cannot be read .ArrowInvalid"),
        ("x.jsonl", "\udcff", "x.jsonl: cannot be read .UnicodeDecodeError"),
        ("x.csv", "a,b", "no data of a known kind; give a .json"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, load: Load, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataProblem, match=message):
        load(path)


@pytest.mark.parametrize("source", ["missing.jsonl", "./no/such/folder", "C:\\data\\x.json"])
def test_missing_files(load: Load, source: str) -> None:
    with pytest.raises(DataProblem, match=r"no such file or folder; give a \.json"):
        load(source)


def test_an_empty_folder(load: Load, tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match="no data of a known kind"):
        load(tmp_path)


def test_the_hub_out_of_reach(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ConnectionError("Couldn't reach\n the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    expected = r"somebody/set: no such file or folder here, and .* \(ConnectionError: Couldn't re"
    with pytest.raises(DataProblem, match=expected):
        load("somebody/set")


@pytest.mark.parametrize(
    ("source", "name", "split"),
    [
        ("somebody/set", None, None),
        ("set:small", "small", None),
        ("somebody/set:small:train", "small", "train"),
        ("somebody/set::train", None, "train"),
    ],
)
def test_the_hubs_config_and_split(
    load: Load, monkeypatch: pytest.MonkeyPatch, source: str, name: str | None, split: str | None
) -> None:
    rows = datasets.Dataset.from_list(_squad_rows())
    calls = []

    def answer(**options: Any) -> Any:
        calls.append(options)
        return rows if options["split"] else datasets.DatasetDict(train=None, validation=rows)

    monkeypatch.setattr(datasets, "load_dataset", answer)
    assert len(load(source)) == 2
    assert calls == [{"path": source.split(":", maxsplit=1)[0], "name": name, "split": split}]


def test_seed_and_count_have_a_range(load: Load) -> None:
    for options in ({"seed": -1}, {"count": 0}):
        with pytest.raises(UsageProblem, match="seed of 0 or more and a count of 1 or more"):
            load("set", **options)


def test_a_slow_tokenizer_is_refused(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", property(lambda _: False))
    with pytest.raises(DataProblem, match="fast tokenizer"):
        load("set")


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("KVHARNESS_TEST_DATA")
    if not folder:
        pytest.skip("KVHARNESS_TEST_DATA does not name the folder with samples of real data")
    return Path(folder)


def test_real_hotpotqa(real: Path, load: Load, encoder: Encoder) -> None:
    items = load(real / "hotpotqa_442", count=20, context=6000)
    rows = {row["question"]: row for _, row in read_records(str(real / "hotpotqa_442"))}
    for item in items:
        row = rows[item.questions[0].text]
        sentences = dict(row["context"])
        expected = [sentences[title][number].strip() for title, number in row["supporting_facts"]]
        found = _evidence(item, item.questions[0], encoder)
        assert len(item.context) <= 6000
        assert len(found) == len(expected)
        assert all(want in have for want, have in zip(expected, found, strict=True))


def test_real_multi_news(real: Path, load: Load) -> None:
    source = real / "longbench_multi_news"
    texts = {row["context"] for _, row in read_records(str(source))}
    items = load(source, suite="summarization", count=10, context=20_000)
    assert {item.text for item in items} <= texts
    assert {item.variant for item in items} == {"multi_news"}


def test_real_data_of_another_layout(real: Path, load: Load) -> None:
    with pytest.raises(DataProblem, match="the columns are document, metadata, questions"):
        load(real / "squality")
