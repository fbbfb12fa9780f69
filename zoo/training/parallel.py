"""Several processes: the strategy, on a cluster or not, and what is said when one of them dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy

from ..checkpoint import WholeFiles
from ..config import RunConfig
from ..errors import ProcessError

if TYPE_CHECKING:
    from ..module import SERModule

STEPS = ("training_step", "validation_step", "test_step")


def strategy(cfg: RunConfig) -> Any:
    """What Lightning's trainer is to be given.

    ``ddp`` copies the model to every device; ``fsdp`` shares its weights, gradients and optimiser
    states out (FSDP2), for full tuning of encoders that do not fit one device.
    """
    t = cfg.trainer
    world = t.devices * t.num_nodes
    if t.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    return "ddp" if world > 1 else "auto"


def plugins() -> list[Any]:
    """Lightning's plugins: checkpoints are written whole; on SLURM, none amid an epoch.

    Lightning would save where the signal finds it and start the next job there, with the epoch's
    first batches again. A run goes on from its last whole epoch by itself, exactly: all that a
    requeued job has to do is to start the same command (zoo/README.md has the script).
    """
    cluster = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    return [WholeFiles(), *cluster]


def share_out(module: SERModule) -> None:
    """Shard a module's weights over the processes of its device mesh, block by block.

    Steps, not ``forward``, are what Lightning calls; they are registered so that the weights of
    the outermost part are gathered for them.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = module.device_mesh
    assert mesh is not None
    data = mesh["data_parallel"]
    for parameter in module.parameters():  # weights in channels-last order are refused
        parameter.data = parameter.data.contiguous()
    family = getattr(module.encoder, "family", None)
    for block in family.blocks if family is not None else []:
        fully_shard(block, mesh=data)
    fully_shard(module, mesh=data)
    for step in STEPS:
        register_fsdp_forward_method(module, step)


@contextmanager
def told_of_losses(world: int) -> Iterator[None]:
    """Turn what a lost process does to the others into a message.

    Raises:
        ProcessError: instead of the communication library's own error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        lost = ("Connection closed", "Connection reset", "Broken pipe", "NCCL", "Timed out waiting")
        if world == 1 or not any(sign in text for sign in lost):
            raise
        raise ProcessError(
            f"another of the {world} processes of this run is gone ({text.splitlines()[0]}); its "
            "own last words say why (out of memory, most often). Start the same command again: "
            "the run goes on from its last whole epoch"
        ) from error
