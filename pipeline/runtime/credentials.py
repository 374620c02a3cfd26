"""Credentials in URLs: masked before a URL is printed, logged or written."""

import re

HIDDEN = "***"
# A database URL may have a blank in its password; a URL in a sentence ends at the first blank or quote.
_DATABASE = re.compile(r"(?P<scheme>(?!https?:)[a-z][\w+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(r"(?P<scheme>[a-z][\w+.-]*)://(?P<rest>[^\s'\"<>]*)", re.IGNORECASE)
# Names of secret values in a query or a fragment: `token`, `api_key`, `X-Amz-Signature`, `sig`, …
_SECRET_VALUE = re.compile(
    r"(?P<name>[?&;#](?:[^=&;#\s]*"
    r"(?:token|secret|passw|pwd|signature|credential|auth(?!or)|api-?_?key|access-?_?key|session|policy|jwt)"
    r"[^=&;#\s]*|sig|key|code|pass|pw))=(?P<value>[^&;#\s]+)",
    re.IGNORECASE,
)
_HOST = re.compile(r"[^@:/?#]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")  # without a user


def without_password(text: str) -> str:
    """The text with every password, token and signature of its URLs masked as `***`.

    >>> without_password("https://me:secret@host/pets.zip?size=9&token=abc")
    'https://me:***@host/pets.zip?size=9&token=***'
    >>> without_password("postgresql://me:p@s/s:word@host/db")
    'postgresql://me:***@host/db'
    """
    pattern = _DATABASE if _DATABASE.fullmatch(text) else _ADDRESS
    return pattern.sub(_shown, text)


def is_masked(text: str) -> bool:
    """Whether `without_password` has masked credentials in the text."""
    return any(
        f":{HIDDEN}@" in found["rest"] or f"={HIDDEN}" in found["rest"] or found["rest"].startswith(HIDDEN)
        for found in _ADDRESS.finditer(text)
    )


def _shown(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    user, at, place = _parts(scheme.lower(), rest)
    if at:
        name, colon, _ = user.partition(":")
        # A web URL with a user and no password has a token as the user: `https://TOKEN@host`.
        user = HIDDEN if scheme.lower() in ("http", "https") else name
        rest = f"{name}:{HIDDEN}@{place}" if colon else f"{user}@{place}"
    return f"{scheme}://" + _SECRET_VALUE.sub(rf"\g<name>={HIDDEN}", rest)


def _parts(scheme: str, rest: str) -> tuple[str, str, str]:
    """User, `@` and the rest; the first two are empty if the URL has no user.

    The user ends at the last `@`, so a password may contain `@` and slashes. The path of a web URL may
    contain `@` too.
    """
    if rest.startswith("/"):  # of a file
        return "", "", rest
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if scheme in ("http", "https"):
        if "@" in authority:
            user, at, host = authority.rpartition("@")
            return user, at, host + rest[len(authority) :]
        if _HOST.fullmatch(authority):
            return "", "", rest
    user, at, place = rest.rpartition("@")
    return user, at, place
