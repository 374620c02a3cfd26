"""Credentials in addresses: hidden before an address is shown, logged or written."""

import re

HIDDEN = "***"
# A database's address may have a blank in its password; one in a sentence ends at the first blank or quote.
_DATABASE = re.compile(r"(?P<scheme>(?!https?:)[a-z][\w+.-]*)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(r"(?P<scheme>[a-z][\w+.-]*)://(?P<rest>[^\s'\"<>]*)", re.IGNORECASE)
# Names of a query's or a fragment's values that give access: `token`, `api_key`, `X-Amz-Signature`, `sig`, …
_SECRET_VALUE = re.compile(
    r"(?P<name>[?&;#](?:[^=&;#\s]*"
    r"(?:token|secret|passw|pwd|signature|credential|auth(?!or)|api-?_?key|access-?_?key|session|policy|jwt)"
    r"[^=&;#\s]*|sig|key|code|pass|pw))=(?P<value>[^&;#\s]+)",
    re.IGNORECASE,
)
_HOST = re.compile(r"[^@:/?#]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")  # without a user


def without_password(text: str) -> str:
    """A text whose addresses can be shown: user's passwords, tokens and signatures are `***`.

    >>> without_password("https://me:secret@host/pets.zip?size=9&token=abc")
    'https://me:***@host/pets.zip?size=9&token=***'
    >>> without_password("postgresql://me:p@s/s:word@host/db")
    'postgresql://me:***@host/db'
    """
    pattern = _DATABASE if _DATABASE.fullmatch(text) else _ADDRESS
    return pattern.sub(_shown, text)


def is_masked(text: str) -> bool:
    """Whether an address has lost its credentials to `without_password`, and cannot be used any more."""
    return any(
        f":{HIDDEN}@" in found["rest"] or f"={HIDDEN}" in found["rest"] or found["rest"].startswith(HIDDEN)
        for found in _ADDRESS.finditer(text)
    )


def _shown(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    user, at, place = _parts(scheme.lower(), rest)
    if at:
        name, colon, _ = user.partition(":")
        # A web address with a name alone has a token in its place: `https://TOKEN@host`.
        alone = HIDDEN if scheme.lower() in ("http", "https") else name
        rest = f"{name}:{HIDDEN}@{place}" if colon else f"{alone}@{place}"
    return f"{scheme}://" + _SECRET_VALUE.sub(rf"\g<name>={HIDDEN}", rest)


def _parts(scheme: str, rest: str) -> tuple[str, str, str]:
    """User, `@` and the rest; the first two are empty where the address has no user.

    The user goes up to the last `@`, so that one within a password, or a slash, leaks nothing; but a web
    address may have an `@` in its path.
    """
    if rest.startswith("/"):  # a file's
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
