"""All that changes while training, as one pytree of arrays."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.extend import core
from jax.interpreters import partial_eval

from leukemia_jax.models import initializers

# Options of XLA for what runs once, and for what then draws millions of values.
_UNOPTIMISED = {'xla_backend_optimization_level': 0}
_OPTIMISED = {'xla_backend_optimization_level': 1}


class TrainState(flax.struct.PyTreeNode):
  """All that changes while training, as arrays.

  Attributes:
    step: int32, steps done.
    params: the model's parameters, float32.
    batch_stats: the batch norms' moving statistics, float32.
    opt_state: the optimizer's moments.
    learning_rate: float32; it falls between epochs.
    sums: float32 (3,): loss, correct answers and images of this epoch so
      far.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  learning_rate: jax.Array
  sums: jax.Array

  def variables(self) -> dict[str, Any]:
    """What `model.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def new_state(
  key: jax.Array,
  model: Any,
  tx: optax.GradientTransformation,
  *,
  shape: tuple[int, ...],
  learning_rate: float | jax.Array,
) -> TrainState:
  """Draws the parameters of a new run.

  Args:
    key: PRNG key.
    model: see `models.create`; or a head.
    tx: from `make_optimizer`.
    shape: of an image, or of a head's features.
    learning_rate: the first one.

  Returns:
    The state before the first step.
  """
  variables = model.init(key, jnp.zeros((1, *shape)), train=False)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables.get('batch_stats', {}),
    opt_state=tx.init(variables['params']),
    learning_rate=jnp.asarray(learning_rate, jnp.float32),
    sums=jnp.zeros(3),
  )


def init_state(
  key: jax.Array,
  model: Any,
  tx: optax.GradientTransformation,
  **fields: Any,
) -> TrainState:
  """`new_state`, compiled without optimisation: it runs once.

  Optimising this code takes longer than running it as it is. Where many kernels
  have one shape it is compiled operation by operation, those of one shape once:
  whole, each of a NASNet's hundreds of draws takes a tenth of a second. Draws
  of one length are one operation then, see `models.initializers`.
  """
  new = functools.partial(new_state, model=model, tx=tx, **fields)
  traced = jax.jit(new).trace(key)
  closed = traced.jaxpr
  # Without the model's answer, which nothing here asks for.
  jaxpr, _ = partial_eval.dce_jaxpr(
    closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True
  )
  kinds = [e.params['jaxpr'] for e in jaxpr.eqns if 'jaxpr' in e.params]
  if len(kinds) < 2 * len(set(kinds)):
    return traced.lower().compile(compiler_options=_UNOPTIMISED)(key)
  consts = dict(zip(jaxpr.constvars, closed.consts, strict=True))
  values = consts | {jaxpr.invars[0]: key}
  leaves = _by_operation(jaxpr.eqns, values, jaxpr.outvars)
  return jax.tree.unflatten(jax.tree.structure(traced.out_info), leaves)


@functools.cache
def _compiled(
  primitive: core.Primitive, params: tuple[tuple[str, Any], ...]
) -> Callable[..., Any]:
  fields = dict(params)
  draws = fields.get('name') == initializers.UNIFORM
  return jax.jit(
    functools.partial(primitive.bind, **fields),
    compiler_options=_OPTIMISED if draws else _UNOPTIMISED,
  )


def _by_operation(
  equations: Iterable[core.JaxprEqn],
  values: dict[core.Var, jax.Array],
  results: Iterable[core.Var | core.Literal],
) -> list[jax.Array]:
  """What a program's equations give, from the values of its inputs."""

  def value(atom: core.Var | core.Literal) -> Any:
    return atom.val if isinstance(atom, core.Literal) else values[atom]

  for equation in equations:
    operands = [*map(value, equation.invars)]
    if equation.params.get('name') == initializers.INITIALIZER:
      inner = equation.params['jaxpr']
      inside = dict(zip(inner.jaxpr.constvars, inner.consts, strict=True))
      inside |= zip(inner.jaxpr.invars, operands, strict=True)
      result: Any = _by_operation(inner.jaxpr.eqns, inside, inner.jaxpr.outvars)
    else:
      params = tuple(sorted(equation.params.items()))
      result = _compiled(equation.primitive, params)(*operands)
    if not equation.primitive.multiple_results:
      result = [result]
    values |= zip(equation.outvars, result, strict=True)
  return [jnp.asarray(value(atom)) for atom in results]
