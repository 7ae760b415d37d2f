"""A self-hosted reverse tunnel on Trio: sessions, streams, tunnels, and a server to embed.

The names are those of `otun.exports`.  They are imported when the first of them is used: that takes longer than Python
takes to start, and the command line, which begins by importing this package, must hear Ctrl-C before.
"""

from .version import __version__ as __version__

TYPE_CHECKING = False  # Type checkers know better; to import `typing` for it takes as long as all that is here.

if TYPE_CHECKING:
    from . import control as control
    from . import errors as errors
    from .exports import *  # noqa: F403 - what they are is said in one place
    from .exports import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        import otun.exports as exports  # not `from . import`, which would ask this function first

        globals().update({export: getattr(exports, export) for export in exports.__all__}, __all__=exports.__all__)
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        __getattr__("__all__")
        return sorted(globals())
