"""How many are there: counted, and waited for until they have left."""

import trio


class Attendance:
    """Counts those who come and go."""

    def __init__(self) -> None:
        self.present: int = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Attendance {self.present}>"

    def come(self) -> None:
        """One more is there."""
        self.present += 1

    def leave(self) -> None:
        """One has left."""
        self.present -= 1
        if not self.present:
            self._waiting.unpark_all()

    async def wait_nobody(self) -> None:
        """Wait until nobody is there."""
        while self.present:
            await self._waiting.park()
