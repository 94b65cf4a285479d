"""Anonymous shared memory that cannot leak: a memfd lives as long as a process holds it, and no longer.

`multiprocessing.shared_memory` has a name in the file system: kill -9 of all its users leaves it behind, and on
Python 3.11 a process that merely attached destroys it on exit. A memfd has neither fault; the descriptor is
handed to the child at its start.
"""

import mmap
import os


class Segment:
    """`nbytes` bytes of shared memory behind the descriptor `fd`, mapped at `buffer`.

    The memory starts as zeros and is committed page by page as it is touched. The mapping ends with the process:
    numpy views keep it alive, and unmapping under them would be a segmentation fault.
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        """Map the first `nbytes` of an open descriptor. Raises OSError or ValueError when it is too short."""
        self.fd = fd
        self.nbytes = nbytes
        self.buffer = memoryview(mmap.mmap(fd, nbytes))

    @classmethod
    def create(cls, name: str, nbytes: int, map_bytes: int | None = None) -> "Segment":
        """Make a new segment of `nbytes`; map only its first `map_bytes` here when that is given."""
        fd = os.memfd_create(name)
        os.ftruncate(fd, nbytes)
        return cls(fd, map_bytes or nbytes)

    def close_descriptor(self) -> None:
        """Give up the descriptor; what is mapped stays readable until the process ends."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
