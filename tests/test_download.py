"""Downloads, against a real HTTP server on the loopback that misbehaves as each test says."""

import hashlib
import http.server
import io
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.runtime.errors import UserError
from pipeline.sources.download import DOGS_VS_CATS, Remote, fetch

BODY = bytes(range(256)) * 800  # 204,800 bytes
OTHER = BODY[::-1]
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What the server does with one request."""

    body: bytes = BODY
    status: int = 200
    etag: str | None = '"first"'
    modified: str | None = None
    ranges: bool = True  # False: every answer is the whole file
    heed_if_range: bool = True  # False: as some servers do, a range of whatever stands there now
    announced: int | None = None  # Content-Length that differs from what is sent
    length: bool = True  # False: the end of the connection is the end of the file
    stop: int | None = None  # breaks off after so many bytes of this answer
    stall: bool = False  # says nothing more at `stop`, and keeps the connection open
    piece: int = 1 << 16  # bytes sent at a time
    interval: float = 0.0  # seconds between pieces
    location: str | None = None


class Handler(http.server.BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self):
        answer = self.server.next_answer(self)
        if answer.status != 200:
            self.send_response(answer.status)
            if answer.location:
                self.send_header("Location", answer.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self.start(answer)
        if start >= len(answer.body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(answer.body)}")
            self.end_headers()
            return
        self.send_head(answer, start)
        self.send_body(answer, answer.body[start:])

    def start(self, answer: Answer) -> int:
        asked = self.headers.get("Range")
        if not asked or not answer.ranges:
            return 0
        same = self.headers.get("If-Range") in (None, answer.etag, answer.modified)
        return int(asked.removeprefix("bytes=").removesuffix("-")) if same or not answer.heed_if_range else 0

    def send_head(self, answer: Answer, start: int):
        size = len(answer.body)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if answer.length:
            announced = size if answer.announced is None else answer.announced
            self.send_header("Content-Length", str(announced - start))
        if answer.etag:
            self.send_header("ETag", answer.etag)
        if answer.modified:
            self.send_header("Last-Modified", answer.modified)
        self.end_headers()

    def send_body(self, answer: Answer, rest: bytes):
        view = memoryview(rest)[: answer.stop]
        for at in range(0, len(view), answer.piece):
            self.wfile.write(view[at : at + answer.piece])
            if answer.interval:
                self.server.released.wait(answer.interval)
        if answer.stall:
            self.wfile.flush()
            self.server.stalled.set()
            self.server.released.wait(30)
            if not self.server.closing:
                self.wfile.write(rest[answer.stop :])

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [Answer()]  # one a request; the last one repeats
        self.requests: list[dict[str, str]] = []
        self.stalled, self.released, self.closing = threading.Event(), threading.Event(), False

    def next_answer(self, handler: Handler) -> Answer:
        self.requests.append({"path": handler.path, **handler.headers})
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def handle_error(self, *_):
        pass  # a client that went away

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [seen.get("Range") for seen in self.requests]

    def url(self, path: str = "/pets.zip") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing = True
        server.released.set()
        server.shutdown()
        thread.join()


def get(server: Server, folder: Path, path: str = "/pets.zip", check=None, timeout=5.0, **expected) -> Path:
    return fetch(Remote(server.url(path), **expected), folder, check, pause=0.0, timeout=timeout)


def names(folder: Path) -> set[str]:
    """Suffixes after the file's own name, of all that stands in the folder."""
    return {path.name.partition("pets.zip")[2] for path in folder.iterdir()}


def test_whole_file_is_fetched_once(server, tmp_path):
    path = get(server, tmp_path / "cache", size=len(BODY), sha256=SHA256)
    assert path.read_bytes() == BODY
    assert path.parent == tmp_path / "cache"
    digest, _, name = path.name.partition("-")
    assert hashlib.sha256(server.url().encode()).hexdigest().startswith(digest)
    assert name == "pets.zip"
    assert names(path.parent) == {"", ".json", ".lock"}
    assert get(server, path.parent) == path
    assert get(server, path.parent, size=len(BODY), sha256=SHA256.upper()) == path
    assert server.ranges == [None]


def test_urls_with_one_file_name_are_kept_apart(server, tmp_path):
    server.answers = [Answer(BODY), Answer(OTHER)]
    first, second = get(server, tmp_path, "/a/pets.zip"), get(server, tmp_path, "/b/pets.zip")
    assert (first.read_bytes(), second.read_bytes()) == (BODY, OTHER)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "download"),
        ("/x/..", ".."),
        ("/x/%E7%8C%AB%20%2F%20dogs.zip?token=1", "猫_dogs.zip"),
        ("/" + "long" * 40 + ".zip", ("long" * 40 + ".zip")[-50:]),
    ],
)
def test_file_names(server, tmp_path, path, name):
    got = get(server, tmp_path, path)
    assert got.name[11:] == name
    assert got.read_bytes() == BODY


def test_empty_file(server, tmp_path):
    server.answers = [Answer(b"")]
    assert get(server, tmp_path).read_bytes() == b""


def test_same_call_resumes_where_it_broke_off(server, tmp_path):
    # Six breaks are more than the tries without progress that a call has.
    server.answers = [Answer(stop=1000)] * 6 + [Answer()]
    assert get(server, tmp_path, sha256=SHA256).read_bytes() == BODY
    assert server.ranges == [None, *(f"bytes={n}000-" for n in range(1, 7))]
    assert {seen["If-Range"] for seen in server.requests[1:]} == {'"first"'}


def test_later_call_resumes(server, tmp_path):
    server.answers = [Answer(stop=1000), Answer(status=503)]
    with pytest.raises(UserError, match=r"503.*1 kB of 204.8 kB.*same command resumes"):
        get(server, tmp_path)
    assert server.ranges == [None] + ["bytes=1000-"] * 3
    assert names(tmp_path) == {".part", ".json", ".lock"}
    server.answers = [Answer()]
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.ranges[4:] == ["bytes=1000-"]


def test_last_modified_stands_in_for_a_weak_etag(server, tmp_path):
    date = "Mon, 02 Jan 2023 00:00:00 GMT"
    server.answers = [Answer(etag='W/"1"', modified=date, stop=1000), Answer(etag='W/"2"', modified=date)]
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[1]["If-Range"] == date
    assert server.ranges == [None, "bytes=1000-"]


def test_without_a_validator_it_starts_over(server, tmp_path):
    server.answers = [Answer(etag=None, stop=1000), Answer(etag='W/"1"', stop=1000), Answer()]
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.ranges == [None] * 3


def test_server_that_ignores_ranges(server, tmp_path):
    server.answers = [Answer(ranges=False, stop=1000), Answer(ranges=False)]
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize("heed_if_range", [True, False])
def test_file_that_changes_between_tries_is_never_mixed(server, tmp_path, heed_if_range):
    new = Answer(OTHER, etag='"second"', heed_if_range=heed_if_range)
    server.answers = [Answer(stop=1000), new]
    assert get(server, tmp_path).read_bytes() == OTHER
    # A server that heeds If-Range answers the second request with the whole new file.
    assert server.ranges == [None, "bytes=1000-"] + ([] if heed_if_range else [None])


def test_part_longer_than_the_file_now_there_starts_over(server, tmp_path):
    server.answers = [Answer(stop=1000), Answer(BODY[:100]), Answer(BODY[:100])]
    assert get(server, tmp_path).read_bytes() == BODY[:100]  # the second answer is a 416
    assert server.ranges == [None, "bytes=1000-", None]


@pytest.mark.parametrize("status", [401, 404, 410, 416])
def test_refusal_ends_at_once(server, tmp_path, status):
    server.answers = [Answer(status=status)]
    with pytest.raises(UserError, match=rf"{server.url()}.* {status} .*browser"):
        get(server, tmp_path)
    assert len(server.requests) == 1
    assert "" not in names(tmp_path)


def test_server_error_that_passes(server, tmp_path):
    server.answers = [Answer(status=500)] * 3 + [Answer()]
    assert get(server, tmp_path).read_bytes() == BODY
    assert len(server.requests) == 4


def test_server_error_that_stays(server, tmp_path):
    server.answers = [Answer(status=500)]
    with pytest.raises(UserError, match=r"500.*4 tries.*same command"):
        get(server, tmp_path)
    assert len(server.requests) == 4


def test_nobody_listens(server, tmp_path):
    url = server.url()
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="refused"):
        fetch(Remote(url), tmp_path, pause=0.0)


def test_slow_is_fine_while_bytes_arrive(server, tmp_path):
    # 1.0 s in all against a time-out of 0.5 s between bytes.
    server.answers = [Answer(piece=len(BODY) // 20, interval=0.05)]
    assert get(server, tmp_path, timeout=0.5).read_bytes() == BODY
    assert len(server.requests) == 1


def test_stall_is_cut_off_and_resumed(server, tmp_path):
    server.answers = [Answer(stop=1000, stall=True), Answer()]
    assert get(server, tmp_path, timeout=0.5).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


def test_announcing_more_than_is_sent(server, tmp_path):
    server.answers = [Answer(announced=len(BODY) + 1)]
    with pytest.raises(UserError, match="could not be downloaded"):
        get(server, tmp_path)
    assert "" not in names(tmp_path)


def test_announcing_less_than_is_sent(server, tmp_path):
    server.answers = [Answer(announced=1000)]
    with pytest.raises(UserError, match=f"removed: its SHA-256 is .* instead of {SHA256}"):
        get(server, tmp_path, sha256=SHA256)
    assert names(tmp_path) == {".json", ".lock"}


def test_length_that_contradicts_ours_takes_no_byte(server, tmp_path):
    with pytest.raises(UserError, match="announces 204,800 bytes, not the expected 7"):
        get(server, tmp_path, size=7)
    assert len(server.requests) == 1
    assert names(tmp_path) == {".lock"}


def test_without_a_length_ours_tells_that_it_broke_off(server, tmp_path):
    server.answers = [Answer(length=False, stop=1000), Answer(length=False)]
    assert get(server, tmp_path, size=len(BODY)).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


def test_without_any_length(server, tmp_path):
    server.answers = [Answer(length=False)]
    assert get(server, tmp_path).read_bytes() == BODY


def test_wrong_hash_is_removed_and_fetched_anew(server, tmp_path):
    server.answers = [Answer(OTHER), Answer(BODY)]
    with pytest.raises(UserError, match=r"SHA-256.*anew"):
        get(server, tmp_path, sha256=SHA256)
    assert names(tmp_path) == {".json", ".lock"}
    assert get(server, tmp_path, sha256=SHA256).read_bytes() == BODY
    assert server.ranges == [None, None]


def test_cached_file_with_another_hash_than_asked_for_is_fetched_anew(server, tmp_path):
    server.answers = [Answer(OTHER), Answer(BODY)]
    get(server, tmp_path)
    assert get(server, tmp_path, sha256=SHA256).read_bytes() == BODY
    assert len(server.requests) == 2


@pytest.mark.parametrize("damage", ["file cut", "file gone", "record gone", "record cut"])
def test_damaged_cache_is_not_used(server, tmp_path, damage):
    path = get(server, tmp_path)
    record = path.with_name(path.name + ".json")
    if damage.endswith("gone"):
        (path if damage.startswith("file") else record).unlink()
    else:
        target = path if damage.startswith("file") else record
        target.write_bytes(target.read_bytes()[:10])
    assert get(server, tmp_path).read_bytes() == BODY
    assert len(server.requests) == 2


def test_crash_between_the_last_byte_and_the_move(server, tmp_path):
    path = get(server, tmp_path, sha256=SHA256)
    path.rename(path.with_name(path.name + ".part"))
    assert get(server, tmp_path, sha256=SHA256) == path
    assert path.read_bytes() == BODY
    assert len(server.requests) == 1


def whole_zip(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path.name} is no zip.")


def test_truncated_zip_served_whole(server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/1.jpg", BODY)
    server.answers = [Answer(buffer.getvalue()[:5000]), Answer(buffer.getvalue())]
    with pytest.raises(UserError, match=r"removed: .* is no zip"):
        get(server, tmp_path, check=whole_zip)
    assert names(tmp_path) == {".json", ".lock"}
    with zipfile.ZipFile(get(server, tmp_path, check=whole_zip)) as archive:
        assert archive.read("cat/1.jpg") == BODY


def test_redirect_is_followed_and_resumed(server, tmp_path):
    moved = Answer(status=302, location="/elsewhere/x.bin")
    server.answers = [moved, Answer(stop=1000), moved, Answer()]
    assert get(server, tmp_path).name.endswith("pets.zip")
    assert [seen["path"] for seen in server.requests] == ["/pets.zip", "/elsewhere/x.bin"] * 2
    assert server.ranges == [None, None, "bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize("location", ["/pets.zip", "ftp://127.0.0.1/pets.zip"])
def test_redirect_that_leads_nowhere(server, tmp_path, location):
    server.answers = [Answer(status=302, location=location)]
    with pytest.raises(UserError, match="check the address"):
        get(server, tmp_path)


@pytest.mark.parametrize(
    "url", ["ftp://host/x.zip", "pets.zip", "file:///etc/passwd", "http://", "http://[x"]
)
def test_addresses_that_are_none(tmp_path, url):
    with pytest.raises(UserError, match="http or https"):
        fetch(Remote(url), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_password_is_not_shown(server, tmp_path):
    server.answers = [Answer(status=404)]
    url = server.url().replace("//", "//me:secret@")
    with pytest.raises(UserError) as error:
        fetch(Remote(url), tmp_path)
    assert "secret" not in str(error.value)
    assert "Authorization" in server.requests[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always full device")
def test_full_disk(server, tmp_path):
    path = get(server, tmp_path)
    part = path.with_name(path.name + ".part")
    path.unlink()
    part.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"no room in .*pets\.zip.*make room"):
        get(server, tmp_path)
    assert part.is_symlink()


def test_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot keep"):
        get(server, tmp_path / "file" / "cache")
    assert server.requests == []


def test_two_processes_share_one_download(server, tmp_path):
    server.answers = [Answer(stop=1000, stall=True)]
    code = (
        "import sys; from pathlib import Path; from pipeline.sources.download import Remote, fetch\n"
        "print(fetch(Remote(sys.argv[1]), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, server.url(), str(tmp_path)]
    root = Path(__file__).parent.parent
    first = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stalled.wait(30)
    second = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "another process is downloading" in second.stderr.readline()
    server.released.set()
    paths = {process.communicate(timeout=30)[0].strip() for process in (first, second)}
    assert (first.returncode, second.returncode) == (0, 0)
    assert [Path(path).read_bytes() for path in paths] == [BODY]
    assert len(server.requests) == 1


def test_killed_process_leaves_what_the_next_one_resumes(server, tmp_path):
    server.answers = [Answer(stop=1000, stall=True), Answer()]
    code = (
        "import sys; from pathlib import Path; from pipeline.sources.download import Remote, fetch\n"
        "fetch(Remote(sys.argv[1]), Path(sys.argv[2]), timeout=0.5, pause=600.0)"
    )
    command = [sys.executable, "-c", code, server.url(), str(tmp_path)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stderr=subprocess.PIPE, text=True)
    assert any("trying again" in line for line in process.stderr)  # it has 1000 bytes, and pauses
    process.kill()
    process.communicate(timeout=30)
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


def test_pauses_grow(server, tmp_path, capsys):
    server.answers = [Answer(status=500)] * 3 + [Answer()]
    begin = time.perf_counter()
    fetch(Remote(server.url()), tmp_path, pause=0.05)
    assert time.perf_counter() - begin > 0.05 + 0.1 + 0.2
    assert capsys.readouterr().err.count("trying again") == 3


def test_log_without_a_terminal_stays_short(server, tmp_path, capsys):
    server.answers = [Answer(piece=100)]
    get(server, tmp_path)
    assert len(capsys.readouterr().err.split("\r")) < 5


def test_record_holds_no_address(server, tmp_path):
    path = get(server, tmp_path)
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert record == {"validator": '"first"', "size": len(BODY), "sha256": SHA256}


def test_microsofts_download_is_pinned():
    assert DOGS_VS_CATS.url.startswith("https://download.microsoft.com/")
    assert DOGS_VS_CATS.size == 824_887_076
    assert len(bytes.fromhex(DOGS_VS_CATS.sha256)) == 32
