"""One folder of a bucket: reading, writing and copying objects, with errors that say what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from emoprobe.config.execution.storage import Storage
from emoprobe.extras import how_to_install
from emoprobe.results.activation_folder import ActivationError

if TYPE_CHECKING:
    from obstore.store import ObjectStore


CONNECT_SECONDS = 20
# Requests are signed once and tried again as they are, so that credentials must outlive all tries of one.
RETRY_SECONDS = 240
ALLOW_HTTP = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP")
VARIABLES = {
    "s3": (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION",
        "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP",
    ),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT_KEY"),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"),
}  # fmt: skip
NAMES_A_FILE = "GOOGLE_APPLICATION_CREDENTIALS"


class StorageError(ActivationError):
    """Object storage that cannot be used, or holds something else than it should; the message says what to do."""


class MissingObjectError(StorageError):
    """There is no such object."""


class CorruptError(StorageError):
    """Data that differ from their hash after several reads."""


@dataclass(frozen=True)
class ObjectStart:
    """A part of an object from its beginning, and what the store says of the whole."""

    content: bytes
    size: int
    e_tag: str | None


class Bucket:
    """A folder of a bucket.

    Requests that fail on the way, or with a status of 5xx, are tried again by obstore, which waits longer each time.

    Args:
        url: `s3://bucket/prefix` and so on.
        settings: how requests are made; its own `url` is not looked at.

    Raises:
        StorageError: obstore is missing, or the environment says something that it cannot use.
    """

    def __init__(self, url: str, settings: Storage | None = None) -> None:
        if find_spec("obstore") is None:
            raise StorageError(f"{url}: object storage needs obstore; {how_to_install('obstore')}")
        self.url, self.settings = url.rstrip("/"), settings or Storage()
        with self._explained("open"):
            self._store = _open(self.url, self.settings)

    @property
    def part(self) -> int:
        """Bytes of one request."""
        return self.settings.part_mib << 20

    def uri(self, key: str) -> str:
        """The full address of an object."""
        return f"{self.url}/{key}"

    def begin(self, key: str, length: int) -> ObjectStart:
        """The first bytes of an object, fewer where it has fewer.

        Raises:
            MissingObjectError, StorageError: it cannot be read.
        """
        import obstore

        with self._explained("read", key):
            result = obstore.get(self._store, key, options={"range": (0, length)})
            return ObjectStart(bytes(result.bytes()), result.meta["size"], result.meta["e_tag"])

    def read(self, key: str, start: int, end: int) -> bytes:
        """Some bytes of an object, in requests of one part each.

        Raises:
            MissingObjectError, StorageError: it cannot be read.
        """
        import obstore

        parts = []
        with self._explained("read", key):
            for begin in range(start, end, self.part):
                length = min(self.part, end - begin)
                parts.append(bytes(obstore.get_range(self._store, key, start=begin, length=length)))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_whole(self, key: str) -> bytes:
        """A whole object, in one request.

        Raises:
            MissingObjectError, StorageError: it cannot be read.
        """
        import obstore

        with self._explained("read", key):
            return bytes(obstore.get(self._store, key).bytes())

    def sizes(self, prefix: str) -> dict[str, int]:
        """Key → size of every object below a prefix.

        Raises:
            StorageError: they cannot be listed.
        """
        import obstore

        with self._explained("list", prefix):
            return {meta["path"]: meta["size"] for chunk in obstore.list(self._store, prefix) for meta in chunk}

    def write(self, key: str, content: Iterator[bytes], size: int, in_flight: int) -> None:
        """Write an object, which appears when all of it is there.

        Args:
            key: its key.
            content: its bytes, in pieces.
            size: how many there are in all.
            in_flight: parts that may be on their way at once.

        Raises:
            StorageError: it cannot be written.
        """
        import obstore

        with self._explained("write", key):
            if size <= self.part:
                obstore.put(self._store, key, b"".join(content), use_multipart=False)
            else:
                obstore.put(self._store, key, content, chunk_size=self.part, max_concurrency=in_flight)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store, which sends none of its bytes.

        Raises:
            StorageError: it cannot be copied.
        """
        import obstore

        with self._explained("write", target):
            obstore.copy(self._store, source, target)

    def delete(self, key: str) -> None:
        """Delete an object.

        Raises:
            StorageError: it cannot be deleted.
        """
        import obstore

        with self._explained("delete", key):
            obstore.delete(self._store, key)

    @contextmanager
    def _explained(self, doing: str, key: str = "") -> Iterator[None]:
        """Turn what obstore raises into errors that say what to do."""
        from obstore.exceptions import BaseError

        place = self.uri(key) if key else self.url
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StorageError(f"{place}: there is no such bucket; make it, or correct storage.url") from None
            raise MissingObjectError(f"{place}: there is no such object") from None
        except (BaseError, OSError, ValueError) as error:
            if _is_refusal(error):
                variables = ", ".join(VARIABLES.get(scheme_of(self.url), ()))
                hint = f" ({variables}, or the provider's own chain)" if variables else ""
                raise StorageError(
                    f"{place}: may not {doing} ({_reason(error)}); renew the credentials in the environment{hint} and "
                    "run again: what is there already is not sent again"
                ) from None
            raise StorageError(
                f"{place}: could not {doing} in {self.settings.attempts} attempts ({_reason(error)}); nothing that is "
                "there was changed, run again"
            ) from None


def scheme_of(url: str) -> str:
    """Return the scheme of an address: `s3`, `gs`, `az` or `file`."""
    return url.partition("://")[0]


def portable_credentials(url: str) -> dict[str, str]:
    """The variables of this environment that reach a store from another machine as well: none that names a file."""
    names = [name for name in VARIABLES.get(scheme_of(url), ()) if name != NAMES_A_FILE]
    return {name: os.environ[name] for name in names if name in os.environ}


def _open(url: str, settings: Storage) -> ObjectStore:
    from obstore.store import from_url

    if url.startswith("file://"):
        return from_url(url, mkdir=True)
    options: dict[str, Any] = {
        "timeout": timedelta(seconds=settings.timeout),
        "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, settings.timeout)),
        # Options given here hide what the environment says of them.
        "allow_http": any(os.environ.get(name, "").lower() in ("1", "true") for name in ALLOW_HTTP),
    }
    retry: Any = {"max_retries": settings.attempts - 1, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    own_chain: dict[str, Any] = {}
    if url.startswith("s3://") and "AWS_ACCESS_KEY_ID" not in os.environ and find_spec("boto3") is not None:
        # obstore itself asks the environment and the machine's role; boto3 adds profiles and single sign-on.
        from obstore.auth.boto3 import Boto3CredentialProvider

        own_chain["credential_provider"] = Boto3CredentialProvider()
    # The overloads tell apart which options belong to which provider; these are those that all have.
    make: Callable[..., ObjectStore] = from_url
    return make(url, client_options=options, retry_config=retry, **own_chain)


def _is_refusal(error: Exception) -> bool:
    """Return whether the store refuses the credentials. That of a list comes as a general error."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
    return refused or re.search(r"status code: 40[13]\b", str(error)) is not None


def _reason(error: Exception) -> str:
    """The part of an error of obstore that tells a person something: what the store answered, or why it did not."""
    text = " ".join(str(error).partition("\n\nDebug source")[0].split())
    answer = re.search(r"(?:status code: (?P<status>[^:<]+)|- (?P<error>HTTP error: .*))", text)
    if answer is None:
        return text[:400]
    details = re.findall(r"<(?:Code|Message)>(.*?)</", text)
    return ": ".join([(answer["status"] or answer["error"]).strip(), *details])[:400]


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item], at_once: int) -> list[Result]:
    """The results of a function for each item, in order, some of them worked on at once; the first error ends it.

    Threads rather than a loop, as a notebook runs one of its own.
    """
    if not items:
        return []
    with ThreadPoolExecutor(min(at_once, len(items))) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def shares(items: int, requests: int) -> tuple[int, int]:
    """Return how many items to process at once, and the requests in flight for each, for a given total."""
    at_once = max(1, min(items, requests))
    return at_once, max(1, requests // at_once)
