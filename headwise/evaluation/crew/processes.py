"""Workers as processes of this machine, each a fresh interpreter that is spoken to through a socket.

In: a spec. Out: hands (`team.Hand`). Messages are pickled, each after its length. A process ends as soon as its driver is
gone; while it works it says so every second. It imports nothing of the driver's program.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from headwise.evaluation.crew.team import PATIENCE, Hand
from headwise.evaluation.crew.work import Call, Spec, Task, Worker, reason
from headwise.memory import HUGE_PAGES

BEAT = 1.0  # seconds between signs of life
HEAD = struct.Struct("<Q")
START = "import sys; from headwise.evaluation.crew.processes import serve; serve(int(sys.argv[1]))"


class Processes:
    """Starts processes.

    Arguments:
        count: how many workers.
        devices: where each computes.
    """

    def __init__(self, count: int, devices: Sequence[str]):
        self.count, self._devices, self._hired = count, devices, 0

    def hire(self, spec: Spec, place: int) -> Hand:
        """A process on the place's device."""
        self._hired += 1
        return _Process(spec, self._devices[place % len(self._devices)], self._hired)

    def wait(self, hands: Sequence[Hand], seconds: float) -> None:
        """See `Launcher.wait`."""
        open_ones = [hand.socket for hand in hands if isinstance(hand, _Process) and not hand.gone]
        if open_ones:
            select.select(open_ones, [], [], seconds)


class _Process:
    def __init__(self, spec: Spec, device: str, number: int):
        self.name, self.gone, self._read = f"Worker {number}", False, bytearray()
        self.socket, there = socket.socketpair()
        self.socket.settimeout(PATIENCE)  # of what is sent: a frozen process takes nothing
        self._log = Path(spec.folder) / f"worker-{number}.log"
        environment = {
            **HUGE_PAGES,
            **os.environ,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, sys.path))),
            "OMP_NUM_THREADS": str(spec.machine.get("threads", 1)),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        }
        with there, self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, str(there.fileno())],
                pass_fds=(there.fileno(),),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt at the terminal is the driver's matter
            )
        with suppress(OSError):
            self.give(pickle.dumps((spec, device)))

    def give(self, task: bytes) -> None:
        """See `Hand.give`."""
        self.socket.sendall(HEAD.pack(len(task)) + task)

    def hear(self) -> list[tuple[str, object]]:
        """See `Hand.hear`."""
        while not self.gone and select.select([self.socket], [], [], 0)[0]:
            try:
                data = self.socket.recv(1 << 20)
            except OSError:
                data = b""
            self.gone = not data
            self._read += data
        found: list[tuple[str, object]] = []
        while len(self._read) >= HEAD.size:
            end = HEAD.size + HEAD.unpack_from(self._read)[0]
            if len(self._read) < end:
                break
            found.append(pickle.loads(self._read[HEAD.size : end]))
            del self._read[:end]
        if self.gone:
            found.append(("gone", self._how()))
        return found

    def _how(self) -> str:
        """How it ended, in words; of an unexpected error its last line."""
        with suppress(subprocess.TimeoutExpired):
            code = self.process.wait(5)
            if code < 0:
                return f"was ended by {signal.Signals(-code).name}"
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if code else []
            return f"ended with code {code}{f' ({lines[-1][:300]})' if lines else ''}"
        return "closed its connection"

    def end(self) -> None:
        """See `Hand.end`."""
        self.gone = True
        self.process.kill()  # also one that is stopped
        self.process.wait()
        self.socket.close()


def serve(number: int) -> None:
    """A worker's life: a spec and a device come first, then tasks, until the driver is gone.

    Arguments:
        number: of the open socket.
    """
    driver, lock, busy = socket.socket(fileno=number), threading.Lock(), threading.Event()

    def tell(kind: str, what: object = None) -> None:
        message = pickle.dumps((kind, what))
        try:
            with lock:
                driver.sendall(HEAD.pack(len(message)) + message)
        except OSError:
            os._exit(0)  # the driver is gone

    def beat() -> None:
        while True:
            time.sleep(BEAT)
            if busy.is_set():
                tell("beat")

    busy.set()
    threading.Thread(target=beat, daemon=True).start()
    try:
        worker = Worker(*_receive(driver))
    except Exception as error:
        tell("refused", reason(error))
        return
    busy.clear()
    tell("ready")
    while True:
        task: Task | Call = _receive(driver)
        busy.set()
        try:
            result = worker.run(task)
        except Exception as error:
            busy.clear()
            tell("failed", reason(error))
        else:
            busy.clear()
            tell("done", result)


def _receive(driver: socket.socket):
    def exactly(size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            if not (more := driver.recv(min(size - len(data), 1 << 20))):
                os._exit(0)  # the driver is gone
            data += more
        return bytes(data)

    return pickle.loads(exactly(HEAD.unpack(exactly(HEAD.size))[0]))
