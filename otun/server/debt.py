"""What has been received on a stream, and not been taken by the visitor yet."""

from ..yamux import YamuxStream


class Debt:
    """Bytes of one stream that count as unread until what was made of them has left.

    What is made of them has another size, so they are paid byte for byte, and the rest when everything has left.
    """

    __slots__ = ("_creditor", "_size")

    def __init__(self) -> None:
        self._creditor: YamuxStream | None = None
        self._size = 0

    def owe(self, creditor: YamuxStream, size: int) -> None:
        """Take note of *size* bytes.  There must be no debt to another stream."""
        assert self._creditor is None or self._creditor is creditor
        self._creditor = creditor
        self._size += size

    def is_owed_to(self, creditor: YamuxStream) -> bool:
        """Whether anything is owed to *creditor*."""
        return self._creditor is creditor

    def pay(self, size: int) -> None:
        """Give the stream back *size* bytes, or what is owed to it."""
        creditor, size = self._creditor, min(size, self._size)
        self._size -= size
        if not self._size:
            self._creditor = None
        if creditor is not None:
            creditor.consume(size)

    def settle(self, creditor: YamuxStream) -> None:
        """Pay everything, if it is owed to *creditor*."""
        if self._creditor is creditor:
            self.pay(self._size)

    def forget(self, creditor: YamuxStream) -> None:
        """Owe nothing to *creditor* any more: it keeps no account."""
        if self._creditor is creditor:
            self._creditor = None
            self._size = 0
