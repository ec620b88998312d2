"""Ctrl-C ends a command at once, whatever it is doing.

Compiled code and XLA's compiler don't return to Python for minutes, so Python's
own handler comes too late there. A thread waits for the signal instead, and
ends the process: files are moved into place whole, so nothing is lost but what
came after the last checkpoint.
"""

import atexit
import os
import signal
import socket
import threading

# What a shell gives to a command that SIGINT ended.
_STATUS = 128 + signal.SIGINT
_SHOW_CURSOR = b'\x1b[?25h'


def _stop() -> None:
  # A progress bar hides the cursor, and stands on the line.
  restore = _SHOW_CURSOR + b'\n' if os.isatty(2) else b''
  os.write(
    2, restore + b'stopped; the same command goes on from what is written\n'
  )
  os._exit(_STATUS)


def hand_over() -> None:
  """Leaves Ctrl-C to handlers that end this process in an order of theirs."""
  signal.set_wakeup_fd(-1)


def install() -> None:
  """Makes Ctrl-C end this process; call it early, in the main thread."""
  # A pipe can't be told not to block in Windows before Python 3.12.
  read, write = socket.socketpair()
  write.setblocking(False)
  signal.signal(signal.SIGINT, lambda *_: None)
  # Python's C handler writes the signal's number, even while C code runs.
  signal.set_wakeup_fd(write.detach(), warn_on_full_buffer=False)
  # A command that has ended keeps its status: Python takes handlers away before
  # it exits, and the signal would then kill it. Registered first, done last.
  atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)

  def wait() -> None:
    while read.recv(1) != bytes([signal.SIGINT]):
      pass
    _stop()

  threading.Thread(target=wait, name='interrupts', daemon=True).start()
