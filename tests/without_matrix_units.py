"""Runs a command as on a processor without matrix units.

    python tests/without_matrix_units.py COMMAND [ARGUMENT ...]

Linux then refuses to give the command, and what it starts, the registers of
AMX, as some containers do.
"""

import ctypes
import os
import sys

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # the latter with EPERM
# Offsets in struct seccomp_data: number of the call, architecture, argument.
_CALL, _ARCHITECTURE, _ARGUMENT = 0, 4, 16
_X86_64, _ARCH_PRCTL, _REQUEST = 0xC000003E, 158, 0x1023
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


class _Instruction(ctypes.Structure):
  _fields_ = [
    ('code', ctypes.c_ushort),
    ('if_true', ctypes.c_ubyte),
    ('if_false', ctypes.c_ubyte),
    ('value', ctypes.c_uint),
  ]


class _Program(ctypes.Structure):
  _fields_ = [
    ('length', ctypes.c_ushort),
    ('instructions', ctypes.POINTER(_Instruction)),
  ]


def refuse_matrix_units() -> None:
  """Lets no later call of this process get them."""
  lines = [
    (_LOAD, 0, 0, _ARCHITECTURE),
    (_JUMP_IF_EQUAL, 0, 5, _X86_64),
    (_LOAD, 0, 0, _CALL),
    (_JUMP_IF_EQUAL, 0, 3, _ARCH_PRCTL),
    (_LOAD, 0, 0, _ARGUMENT),
    (_JUMP_IF_EQUAL, 0, 1, _REQUEST),
    (_RETURN, 0, 0, _REFUSE),
    (_RETURN, 0, 0, _ALLOW),
  ]
  instructions = (_Instruction * len(lines))(*lines)
  program = _Program(len(lines), instructions)
  libc = ctypes.CDLL(None, use_errno=True)
  for arguments in (
    (_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
    (_SET_SECCOMP, _FILTER, ctypes.byref(program)),
  ):
    if libc.prctl(*arguments):
      raise OSError(ctypes.get_errno(), 'prctl')


if __name__ == '__main__':
  refuse_matrix_units()
  os.execvp(sys.argv[1], sys.argv[1:])
