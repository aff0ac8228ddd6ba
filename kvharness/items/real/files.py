"""Rows of real data from files, folders and the Hub."""

from __future__ import annotations

import json
import re
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kvharness.errors import DataProblem

if TYPE_CHECKING:
    from kvharness.items.real.layouts import Record

_KINDS = (".json", ".jsonl", ".parquet")
_HUB_ID = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?::([^:]*))?(?::([^:]+))?")
_SPLITS = ("validation", "test", "train")
_EXPECTED = (
    "give a .json, .jsonl or .parquet file, a folder of them, or a data set on the Hub as "
    "id[:config[:split]], reachable or in the cache"
)


def read_records(source: str) -> list[tuple[str, Record]]:
    """Every row of a file, a folder or a Hub data set, each with a name for messages."""
    files = local_files(source)
    if files is None:
        records = _read_hub(source)
    else:
        records = [record for file in files for record in _read_file(file)]
    if not records:
        msg = f"{source}: is empty; expected at least one row; {_EXPECTED}"
        raise DataProblem(msg)
    return records


def local_files(source: str) -> list[Path] | None:
    """The files that a source names; None where it can only be a data set on the Hub.

    Raises:
        DataProblem: it can be neither, or there is no data in it.
    """
    path = Path(source)
    try:
        path = path.expanduser()
        if path.exists():
            return _files(path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"{source}: cannot be read ({reason}); {_EXPECTED}"
        raise DataProblem(msg) from error
    if _HUB_ID.fullmatch(source) and path.suffix not in _KINDS:
        return None
    msg = f"{source}: no such file or folder; {_EXPECTED}"
    raise DataProblem(msg)


def _files(path: Path) -> list[Path]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in found if file.suffix in _KINDS]
    if not files:
        msg = f"{path}: no data of a known kind; {_EXPECTED}"
        raise DataProblem(msg)
    return files


def _read_file(file: Path) -> list[tuple[str, Record]]:
    # JSON is read as text: Arrow's JSON reader turns answers such as "2020-01-31" into
    # timestamps and refuses columns that hold quotes here and offsets there.
    text = {"path": "text", "sample_by": "document", "encoding": "utf-8-sig"}
    with TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        rows = _load(
            f"{file}: cannot be read",
            **({"path": "parquet"} if file.suffix == ".parquet" else text),
            data_files=escape(str(file)),
            split="train",
            cache_dir=cache,
        )
        loaded = list(rows)
    if file.suffix == ".parquet":
        return [(f"{file} row {number}", row) for number, row in enumerate(loaded, 1)]
    return _parsed(file, str(loaded[0]["text"]) if loaded else "")


def _parsed(file: Path, text: str) -> list[tuple[str, Record]]:
    if file.suffix == ".jsonl":
        lines = ((f"{file} line {n}", line) for n, line in enumerate(text.split("\n"), 1))
        rows = [(name, _json(name, line)) for name, line in lines if line.strip()]
    else:
        whole = _json(str(file), text) if text.strip() else []
        listed = whole if isinstance(whole, list) else [whole]
        rows = [(f"{file} row {number}", row) for number, row in enumerate(listed, 1)]
    for name, row in rows:
        if not isinstance(row, dict):
            msg = f"{name}: is no object with named fields; correct or remove the row"
            raise DataProblem(msg)
    return rows


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = (
            f"{name}: is not JSON ({error}); expected one object a line in .jsonl, a list of "
            f"objects in .json. Correct the text or the file's name"
        )
        raise DataProblem(msg) from error


def _read_hub(source: str) -> list[tuple[str, Record]]:
    match = _HUB_ID.fullmatch(source)
    assert match is not None  # noqa: S101 - as `local_files` found
    name, config, split = match.groups()
    failure = f"{source}: no such file or folder here, and the Hub's data set cannot be loaded"
    loaded = _load(failure, path=name, name=config or None, split=split)
    if isinstance(loaded, dict):
        loaded = loaded[next(split for split in (*_SPLITS, *loaded) if split in loaded)]
    return [(f"{source} row {number}", row) for number, row in enumerate(loaded, 1)]


def _load(failure: str, **options: Any) -> Any:
    import datasets  # noqa: PLC0415 - slow to import, and few runs use real data

    try:
        return datasets.load_dataset(**options)
    except Exception as error:  # datasets passes on whatever its readers and network raise
        cause = error.__cause__ or error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        msg = f"{failure} ({reason}); {_EXPECTED}"
        raise DataProblem(msg) from error
