"""Files that are written whole or not at all, places that can be written to, caches, and names that are still free.

Of the standard library alone.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

_ELSEWHERE = "name a place that can be written to"
OLD = ".old.part"  # ends the name of a folder that is being replaced: .<its name>.<token>.old.part


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is flushed to disk and renamed to `path`.

    What is written may be a file or a folder. After an exception the temporary is gone and `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)  # machines that share a folder may share a process's number
    temporary = _temporary(path, token)
    old = path.with_name(f".{path.name}.{token}{OLD}")
    try:
        yield temporary
        for written in [temporary, *temporary.rglob("*")]:
            _flush(written)
        try:
            if path.is_dir():  # a folder cannot be renamed onto another: for a moment neither has the name
                os.replace(path, old)
            os.replace(temporary, path)
        except BaseException:
            if old.is_dir() and not path.exists():
                os.replace(old, path)
            raise
        _flush(path.parent)
        if old.is_dir():
            shutil.rmtree(old)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_file(argument: str, path: Path, endings: Sequence[str]) -> None:
    """Raise a ValueError unless `path` has one of these endings and can be written, in a folder that exists."""
    try:
        if path.is_dir():
            raise ValueError(f"{argument} must name a file, got the folder {path}; try {path / f'output{endings[0]}'}")
        if path.name.lower() in endings:
            raise ValueError(f"{argument} must have a name before its ending, got {path}; try output{endings[0]}")
        if not path.name.lower().endswith(tuple(endings)):
            raise ValueError(f"{argument} must end in {' or '.join(endings)}, got {path}; try {path}{endings[0]}")
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{argument} must lie in a folder that exists, got {path}; make {path.parent} first")
        _check_name(_temporary(path.absolute(), secrets.token_hex(4)))
    except OSError as error:
        raise _not_writable(argument, path, error) from None
    check_folder(argument, path.absolute().parent)


def check_folder(argument: str, path: Path) -> None:
    """Raise a ValueError unless files can be written into the folder `path`, which need not exist yet."""
    place = path.absolute()
    try:
        _check_name(place)
        while not os.path.lexists(place):
            place = place.parent
        if place.is_dir():
            tempfile.TemporaryFile(dir=place).close()
            return
    except OSError as error:
        raise _not_writable(argument, path, error) from None
    raise ValueError(f"{argument} must be a folder, got {path}, where {place} is none; {_ELSEWHERE}")


def _check_name(path: Path) -> None:
    """Raise an OSError where no file of this name can be, because it is too long for one."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()


def _not_writable(argument: str, path: Path, error: OSError) -> ValueError:
    return ValueError(f"{argument} must be writable, got {path} ({error.strerror}); {_ELSEWHERE}")


def _temporary(path: Path, token: str) -> Path:
    """What is written before it gets the name `path`."""
    return path.with_name(f".{path.stem}.{token}.part{path.suffix}")


def unused(path: Path) -> Path:
    """`path` or, where that exists, the first free name of name-2, name-3, ... before its suffix."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def user_cache(variable: str, name: str) -> Path | None:
    """The folder that an environment variable names, else `name` in the user's cache folder (None without a home)."""
    if folder := os.environ.get(variable):
        return Path(folder)
    caches = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if caches.startswith("~") else Path(caches, name)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporaries that killed processes left in `folder`; an old folder without a new one is put back."""
    for leftover in list(folder.glob(".*.part*")):
        target = leftover.with_name(leftover.name[1:].removesuffix(OLD).rpartition(".")[0])
        if leftover.name.endswith(OLD) and not target.exists():
            os.replace(leftover, target)
        elif leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if os.name == "nt":  # Windows flushes neither folders nor files that are open for reading
        return
    with suppress(OSError) if path.is_dir() else nullcontext():  # some file systems flush files alone
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
