"""Music as tokens and back. Both codecs offer the same names, so an app picks one by its name and goes on."""

from types import ModuleType


def get_codec(name: str) -> ModuleType:
    """The codec module called `name`, "performance" or "chorale". ValueError for any other name."""
    from apps.music.codecs import chorale, performance

    codecs = {chorale.NAME: chorale, performance.NAME: performance}
    if name not in codecs:
        raise ValueError(f"there is no codec {name!r}; choose one of {', '.join(sorted(codecs))}")
    return codecs[name]
