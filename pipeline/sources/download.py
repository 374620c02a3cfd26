"""Downloads of one file over http(s): resumed, checked, and never half-used (cached.py keeps it)."""

import errno
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from pipeline.runtime.console import Bar, file_size
from pipeline.runtime.credentials import is_masked, without_password
from pipeline.runtime.errors import UserError
from pipeline.sources.download_cache import Entry, Record, Remote, mismatch, say

_CHUNK = 1 << 18  # most bytes taken from the connection at once
_TRIES = 4  # requests in a row of which none but the first brings anything new, before we give up


# Size and hash: huggingface/datasets, datasets/cats_vs_dogs/dataset_infos.json; gomlx/gomlx's dogsvscats
# example has the same hash. tensorflow/datasets lists only the earlier kagglecatsanddogs_3367a.zip.
DOGS_VS_CATS = Remote(
    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
    size=824_887_076,
    sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
)


def fetch(
    remote: Remote,
    folder: Path,
    check: Callable[[Path], None] | None = None,
    *,
    pause: float = 1.0,
    timeout: float = 60.0,
) -> Path:
    """Returns the local path of the complete, checked file, downloading what is missing of it.

    A file that was complete before is used without a request. A part is resumed, by this call or a later
    one, only where the server's validator says that it is still the same file. Processes that want the same
    file wait for the one that downloads it. Bytes are kept as sent. Where the server announces no length and
    `remote` gives none, a cut-off file can only be noticed by `check`.

    Args:
        remote: The file.
        folder: The cache folder; made where missing. The file's name in it starts with a hash of the URL.
        check: Called with the path of the downloaded file before it counts as complete; raises UserError
            where the file is not what it should be. Not called for a file that was complete before.
        pause: Seconds before the second try; doubled before each further one.
        timeout: Seconds without a connection, or without a byte, after which a try has failed.

    Returns:
        The path, in `folder`.

    Raises:
        UserError: The URL cannot be downloaded from, or has lost its credentials, the server refuses or keeps
            failing, the file is not the expected one, or the disk cannot take it.
    """
    entry = Entry(folder / _file_name(remote.url))
    try:
        if entry.holds(remote):
            return entry.path
        if is_masked(remote.url):
            raise UserError(
                f"{remote.url} has no credentials: runs are recorded without them, and the file is not in "
                f"{folder.absolute()} any more; set data.source to the address with its credentials"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with entry.locked():
            if not entry.holds(remote):  # the process that held the lock may have brought it
                _download(remote, entry, pause, timeout)
                _accept(remote, entry, check)
    except OSError as error:
        raise UserError(_disk_problem(error, remote, entry)) from error
    return entry.path


class _Interrupted(Exception):
    """A try failed in a way that may pass; the text says how."""


def _download(remote: Remote, entry: Entry, pause: float, timeout: float) -> None:
    """Brings the part to its full length.

    Only tries that bring nothing new are counted, so a long file comes through a line that keeps breaking.
    """
    farthest, failures = entry.have(), 0
    while True:
        try:
            return _transfer(remote, entry, timeout)
        except _Interrupted as error:
            reason = error
        if entry.have() > farthest:
            farthest, failures = entry.have(), 0
        failures += 1
        if failures == _TRIES:
            raise UserError(
                f"{without_password(remote.url)} could not be downloaded: {reason} ({_TRIES} tries); "
                f"{_progress(entry)}; check the connection, then run the same command again"
            )
        say(f"{reason}; trying again")
        time.sleep(pause * 2 ** (failures - 1))


def _transfer(remote: Remote, entry: Entry, timeout: float) -> None:
    """Makes one request for what is missing of the part, and adds the answer to it."""
    recorded = entry.recorded()
    validator = recorded.validator or ""
    have = entry.have() if validator else 0
    if entry.have() and entry.have() == recorded.size:
        return  # an earlier process ended between the last byte and the move
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges shall count the file's own bytes
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        with requests.get(remote.url, headers=headers, stream=True, timeout=timeout) as response:
            _receive(response, entry, _open_part(response, remote, entry, have))
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        # What lies in the address itself (requests makes those ValueErrors) or loops does not pass.
        if isinstance(error, ValueError | requests.TooManyRedirects):
            reason = str(error).rstrip(".")
            raise UserError(
                f"cannot download {without_password(remote.url)}: {reason}; check the address"
            ) from error
        raise _Interrupted(f"the transfer broke off ({_root(error)})") from error


def _open_part(response: requests.Response, remote: Remote, entry: Entry, have: int) -> int | None:
    """Judges the answer to a request for all but the first `have` bytes, and makes the part ready for it.

    Returns:
        Bytes of the whole file; None where neither the server nor `remote` says.

    Raises:
        UserError: Trying again would not help.
        _Interrupted: It may.
    """
    status = response.status_code
    if status >= 500:
        raise _Interrupted(f"the server answered {status} {response.reason}")
    if status == 200:
        length = response.headers.get("Content-Length", "")
        size = _agreed(remote, int(length) if length.isdecimal() else None)
        entry.start(Record(_validator(response), size))
        return size
    if have and status in (206, 416):
        if status == 206 and (rest := _continued(response, entry.recorded(), have)):
            size = _agreed(remote, rest.size)
            entry.note(replace(rest, size=size))
            return size
        entry.drop()
        raise _Interrupted("the file on the server is another one than its part here, which was dropped")
    raise UserError(
        f"{without_password(remote.url)}: the server answered {status} {response.reason}; open the address "
        "in a browser: if the file has moved or needs a login, download it there and name the local file"
    )


def _continued(response: requests.Response, recorded: Record, have: int) -> Record | None:
    """What is known of the file after a 206 answer; None where it is not the rest of the part.

    If-Range leaves this to the server, but there are servers that ignore it.
    """
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != have or _validator(response) not in (None, recorded.validator):
        return None
    size = recorded.size if found[2] == "*" else int(found[2])
    return replace(recorded, size=size) if recorded.size in (None, size) else None


def _receive(response: requests.Response, entry: Entry, size: int | None) -> None:
    have = entry.have()
    bar = Bar(
        desc=entry.path.name,
        total=size,
        initial=have,
        unit="B",
        file=sys.stderr,
        mininterval=0.1 if sys.stderr.isatty() else 30.0,  # seconds; a log gets few lines
    )
    with bar, entry.part.open("ab") as part:
        # read1 hands out what has arrived; read would lose up to a chunk where the connection breaks.
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            part.write(chunk)
            bar.update(len(chunk))
    if size is not None and entry.have() < size:
        raise _Interrupted(f"the server ended at byte {entry.have():,} of {size:,}")


def _accept(remote: Remote, entry: Entry, check: Callable[[Path], None] | None) -> None:
    """Checks the part, and moves it into place or removes it."""
    with entry.part.open("rb+") as part:
        sha256 = hashlib.file_digest(part, "sha256").hexdigest()
        os.fsync(part.fileno())  # or a power cut could leave a complete name on missing bytes
    recorded, size = entry.recorded(), entry.have()
    expected = replace(remote, size=recorded.size) if remote.size is None else remote
    problem = mismatch(expected, size, sha256)
    if problem is None and check is not None:
        try:
            check(entry.part)
        except UserError as error:
            problem = str(error)
    if problem is not None:
        entry.drop()
        raise UserError(
            f"what came from {without_password(remote.url)} is not the expected file, and was removed: "
            f"{problem}; run the same command again to download it anew; if that does not help, the file on "
            "the server is damaged or has been replaced"
        )
    entry.complete(replace(recorded, size=size, sha256=sha256))


def _agreed(remote: Remote, announced: int | None) -> int | None:
    """The size that the server announces or, where it does not, that we know; before any byte is taken."""
    if announced is not None and remote.size not in (None, announced):
        raise UserError(
            f"{without_password(remote.url)}: the server announces {announced:,} bytes, not the expected "
            f"{remote.size:,}: the file has been replaced; get it elsewhere and name the local file instead"
        )
    return remote.size if announced is None else announced


def _validator(response: requests.Response) -> str | None:
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):  # a weak one does not promise the same bytes (RFC 9110, 13.1.5)
        return etag
    return response.headers.get("Last-Modified")


def _file_name(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:  # such as an unclosed bracket
        raise UserError(
            f"{without_password(url)} is no address ({error}); give an http or https URL"
        ) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"cannot download {without_password(url)}: give an http or https URL, such as https://host/file.zip"
        )
    name = re.sub(r"[^\w.-]+", "_", unquote(parts.path.rpartition("/")[2]))
    # The end of a long name is kept for its suffix; 50 characters fit every file system in any script.
    # Not of the credentials: the file is the same, and runs name it without them.
    key = hashlib.sha256(without_password(url).encode()).hexdigest()[:10]
    return f"{key}-{name[-50:] or 'download'}"


def _progress(entry: Entry) -> str:
    recorded, have = entry.recorded(), entry.have()
    if not have:
        return "nothing has come yet"
    whole = file_size(recorded.size) if recorded.size else "an unknown size"
    came = f"{file_size(have)} of {whole} have come"
    if recorded.validator is None:
        return f"{came}, but this server offers no way to resume: the next try starts over"
    return f"{came} and are kept in {entry.part}: the same command resumes there"


def _disk_problem(error: OSError, remote: Remote, entry: Entry) -> str:
    folder, shown = entry.path.parent, without_password(remote.url)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room in {folder} for {shown}; {_progress(entry)}; make room first"
    return f"cannot keep {shown} in {folder}: {error}; fix that folder, or use another"


def _root(error: BaseException) -> str:
    """What the innermost exception says: the outer ones of requests and urllib3 repeat addresses and ids."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
