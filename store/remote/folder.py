"""A folder on a file system that fsspec knows. The only file that talks to one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from stepscope.store.address import is_address, shown
from stepscope.store.errors import StoreError, UnreachableError

_HAS_FOLDERS = {"file", "local", "sftp", "ssh", "smb", "ftp", "hdfs", "webhdfs"}
"""Protocols on which a folder must be made before something is put in it; the others have no folders."""


class RemoteFolder:
    """Reads and writes whole objects below an address; paths are relative to it, with slashes.

    Attributes:
        address: where it is, as it may be shown.

    Raises:
        StoreError: this is no address, there is no such protocol, or what it needs is not installed.
    """

    def __init__(self, address: str) -> None:
        if not is_address(address):
            raise StoreError(f"{str(address)!r} is no address; expected one like s3://bucket/runs")
        self.address = shown(address)
        self._system, root = _file_system(address)
        self._root = root.rstrip("/")
        self._has_folders = bool(_HAS_FOLDERS.intersection(_protocols(self._system)))

    def names(self, path: str = "") -> list[str]:
        """The names of what lies in a folder, in order; none if there is no such folder."""
        return sorted(self.sizes(path))

    def sizes(self, path: str = "") -> dict[str, int]:
        """The names of what lies in a folder, with their sizes in bytes; 0 for folders."""
        with self._translated("listed"):
            try:
                entries = self._system.ls(self._at(path), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            found = ((entry["name"].rstrip("/").rpartition("/")[2], entry.get("size")) for entry in entries)
            return {name: int(size or 0) for name, size in found if name}

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes of an object, or those from ``start`` to ``end``.

        Raises:
            FileNotFoundError: there is no such object.
            UnreachableError: it cannot be read.
        """
        with self._translated("read"):
            if not start and end is None:
                return bytes(self._system.cat_file(self._at(path)))
            return bytes(self._system.cat_file(self._at(path), start=start, end=end))

    def write(self, path: str, data: bytes) -> None:
        """Write an object; one that exists is replaced."""
        with self._translated("written to"):
            if self._has_folders:  # there, a reader could see half of what is being written
                self._make_folder_of(path)
                self._system.pipe_file(f"{self._at(path)}.part", data)
                self._system.mv(f"{self._at(path)}.part", self._at(path))
            else:
                self._system.pipe_file(self._at(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object; False if there already is one, where the file system can tell."""
        with self._translated("written to"):
            if self._has_folders:
                self._make_folder_of(path)
            try:
                self._system.pipe_file(self._at(path), data, mode="create")
            except FileExistsError:
                return False
            except Exception:  # not every server knows exclusive writes
                if self._system.exists(self._at(path)):
                    return False
                self._system.pipe_file(self._at(path), data)
            return True

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects; those that do not exist are no error."""
        with self._translated("cleaned up"):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._system.rm_file(self._at(path))

    def remove_folder(self, path: str) -> None:
        """Remove everything in a folder below this one."""
        with self._translated("cleaned up"), contextlib.suppress(FileNotFoundError):
            self._system.rm(self._at(path), recursive=True)

    def __repr__(self) -> str:
        return f"<RemoteFolder {self.address}>"

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _make_folder_of(self, path: str) -> None:
        self._system.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Each file system has errors of its own; here they become one."""
        try:
            yield
        except Exception as error:
            if isinstance(error, FileNotFoundError) and doing == "read":
                raise
            raise UnreachableError(f"{self.address} cannot be {doing} ({type(error).__name__}: {error})") from error


def _file_system(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise StoreError(
            f'{shown(address)}: addresses need one more package: pip install "stepscope[remote]" '
            "(and what fsspec needs for the protocol: s3fs for s3://, gcsfs for gs://)"
        ) from error
    try:
        system, root = url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise StoreError(f"{shown(address)}: {error}") from error
    except ValueError as error:
        raise StoreError(f"{shown(address)}: {error}; give a folder, or an address like s3://bucket/runs") from error
    return system, str(root)


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)
