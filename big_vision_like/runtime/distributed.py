"""Many processes: start-up with a roll call, and what processes tell another.

Start-up is JAX's (`jax.distributed`): Cloud TPU, SLURM and Open MPI are found
by themselves, anything else is told by --coordinator, --num_processes and
--process_id. Before it, every process reports to the first one, so that a
missing host ends with a list of who is there instead of an abort.

The key-value store of JAX's coordination service carries short texts between
processes: decisions of the first process, requests to stop, signs of life. The
two imports of jax._src below have no public counterpart; they are the same in
jax 0.10 to 0.12.
"""

import contextlib
import itertools
import json
import os
import re
import socket
import sys
import time
from typing import Any, NoReturn

import jax

_NAMESPACE = 'bvl/'
_CONNECT_EVERY_S = 0.2
_GRACE_S = 10.0
_ANSWER_BYTES = 65_536
_broadcasts = itertools.count()


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  timeout_s: float = 300,
) -> None:
  """Joins the world that the flags or the cluster describe; else does nothing.

  Call it before anything touches a device.

  Args:
    coordinator: 'host:port' of process 0, free there and reachable by all.
    num_processes: size of the world; 1 turns the detection of clusters off.
    process_id: this process, 0 to num_processes - 1.
    timeout_s: how long to wait for the others.

  Raises:
    ValueError: flags that do not fit together.
    TimeoutError: some process never came; names those that did.
  """
  local_devices = None
  given = (coordinator, num_processes, process_id)
  if given == (None, None, None):
    coordinator, num_processes, process_id, local_devices = _detect(timeout_s)
  elif None in given and num_processes != 1:
    raise ValueError(
      '--coordinator, --num_processes and --process_id belong together, got '
      f'{coordinator}, {num_processes}, {process_id}'
    )
  if coordinator is None or num_processes in (None, 1):
    return
  assert num_processes is not None and process_id is not None
  if num_processes < 1:
    raise ValueError(f'--num_processes={num_processes} must be at least 1')
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f'--process_id={process_id} must be 0 to {num_processes - 1} '
      f'(--num_processes={num_processes})'
    )
  _address(coordinator)
  roll_call(coordinator, num_processes, process_id, timeout_s)
  jax.distributed.initialize(
    coordinator,
    num_processes,
    process_id,
    local_device_ids=local_devices,
    initialization_timeout=max(int(timeout_s), 10),
    shutdown_timeout_seconds=60,
  )


def _detect(timeout_s: float) -> tuple[Any, Any, Any, Any]:
  """(coordinator, processes, id, local devices) of the cluster, or Nones."""
  from jax._src import clusters

  return clusters.ClusterEnv.auto_detect_unset_distributed_params(
    None, None, None, None, None, int(timeout_s)
  )


def _address(coordinator: str) -> tuple[str, int]:
  host, _, port = coordinator.rpartition(':')
  if (
    not host
    or not re.fullmatch('[0-9]{1,5}', port)
    or not 0 < int(port) < 65_536
  ):
    raise ValueError(
      f'--coordinator={coordinator!r} must be host:port, the port 1 to 65535'
    )
  return host.strip('[]'), int(port)


def roll_call(
  coordinator: str, num_processes: int, process_id: int, timeout_s: float
) -> None:
  """Returns when all processes are there.

  Raises:
    TimeoutError: on every process that came, naming who is there and missing.
  """
  deadline = time.monotonic() + timeout_s
  me = f'{socket.gethostname()} pid {os.getpid()}'
  if process_id == 0:
    problem = _call(_address(coordinator)[1], num_processes, me, deadline)
  else:
    problem = _report(coordinator, process_id, me, deadline)
  if problem:
    raise TimeoutError(problem)


def _call(port: int, num_processes: int, me: str, deadline: float) -> str:
  """Waits for the reports of all others and answers them; '' or the problem."""
  there, lines = {0: me}, []
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(_listen(port))
    while len(there) < num_processes:
      left = deadline - time.monotonic()
      if left <= 0:
        break
      server.settimeout(left)
      with contextlib.suppress(OSError, ValueError):
        line, _ = server.accept()
        stack.enter_context(line)
        line.settimeout(5)
        number, who = json.loads(line.recv(_ANSWER_BYTES))
        there[int(number)] = str(who)
        lines.append(line)
    missing = sorted(set(range(num_processes)) - set(there))
    problem = ''
    if missing:
      listed = '\n'.join(f'  {i}: {who}' for i, who in sorted(there.items()))
      problem = (
        f'{len(there)} of {num_processes} processes came in time; missing: '
        f'{", ".join(map(str, missing))}. There are\n{listed}'
      )
    for line in lines:
      with contextlib.suppress(OSError):
        line.sendall(json.dumps(problem).encode())
  return problem


def _listen(port: int) -> socket.socket:
  try:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    return socket.create_server(
      ('', port),
      family=family,
      dualstack_ipv6=family == socket.AF_INET6,
      backlog=1024,
    )
  except OSError as error:
    raise ValueError(
      f'--coordinator: port {port} cannot be used here: {error.strerror}'
    ) from error


def _report(coordinator: str, process_id: int, me: str, deadline: float) -> str:
  """Reports to the first process and waits for its answer."""
  address = _address(coordinator)
  reason = 'no answer'
  while (left := deadline - time.monotonic()) > 0:
    try:
      with socket.create_connection(address, timeout=min(left, 10)) as line:
        line.sendall(json.dumps([process_id, me]).encode())
        line.settimeout(left + _GRACE_S)  # it answers at its own deadline
        answer = line.recv(_ANSWER_BYTES)
        if answer:
          return json.loads(answer)
    except OSError as error:
      reason = error.strerror or str(error)
    time.sleep(_CONNECT_EVERY_S)
  return (
    f'process {process_id} did not reach process 0 at {coordinator} '
    f'({reason}); is it running, and is the port open?'
  )


def check_platform(wanted: str) -> None:
  """Refuses a run whose config wants another kind of device than there is.

  Raises:
    ValueError: naming config.device, what it wants and what was found.
  """
  found = jax.default_backend()
  fits = {'any': True, 'accelerator': found != 'cpu'}
  if not fits.get(wanted, found == wanted):
    raise ValueError(
      f'config.device={wanted!r}, but JAX found only {found!r} '
      f'({jax.devices()[0].device_kind}); install requirements-gpu.txt or '
      'requirements-tpu.txt, or set --config.device=any to run here'
    )


def is_first() -> bool:
  """Whether this process writes the files and talks to the console."""
  return jax.process_index() == 0


def store() -> Any:
  """The key-value store; None in a world of one process."""
  from jax._src import distributed

  return distributed.global_state.client


def put(key: str, text: str) -> None:
  """Publishes a text under a key, in place of an earlier one."""
  store().key_value_set(_NAMESPACE + key, text, allow_overwrite=True)


def get(key: str) -> str | None:
  """The text under a key, or None; does not wait."""
  try:
    return store().key_value_try_get(_NAMESPACE + key)
  except jax.errors.JaxRuntimeError:
    return None


def wait_for(key: str, timeout_s: float) -> str:
  """The text under a key, once it is there."""
  return store().blocking_key_value_get(_NAMESPACE + key, int(timeout_s * 1000))


def decide(value: Any, timeout_s: float = 600) -> Any:
  """The first process's value (plain JSON) on all of them.

  All processes must call it in the same order. What was read from a shared
  file system may differ between hosts for a while; what steers collective
  operations must not.
  """
  if jax.process_count() == 1:
    return value
  key = f'decision/{next(_broadcasts)}'
  if is_first():
    put(key, json.dumps(value))
    return value
  return json.loads(wait_for(key, timeout_s))


def leave(code: int) -> NoReturn:
  """Ends this process at once after a failure.

  An orderly exit would wait for the others, who wait for this one.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  if store() is not None:
    os._exit(code)
  sys.exit(code)
