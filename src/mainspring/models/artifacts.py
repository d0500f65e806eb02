"""A model's files, read one by one as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping


class Artifacts(Mapping[str, bytes]):
    """Files by name, each read anew whenever it is asked for: what nobody asks for is never in memory."""

    def __init__(self, names: Iterable[str], read: Callable[[str], bytes]) -> None:
        self._names = dict.fromkeys(names)
        self._read = read

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
