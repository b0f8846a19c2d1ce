"""The state of a run: what a trainer needs to continue, and the checks that it fits before it is used."""

import math
from numbers import Real

import torch
from torch import Tensor

from mixer.config import check_same
from mixer.recipe import Muon
from mixer.training import Trainer

MOMENTS = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq"), Muon: ("momentum_buffer",), torch.optim.SGD: ()}
Groups = dict[str, dict[str, Tensor]]  # tensors by group and name


def state_of(trainer: Trainer) -> tuple[Groups, dict]:
    """What resuming needs: the tensors "model", "sums", "optimiser" and perhaps "learner", and numbers."""
    groups = {"model": trainer.model.state_dict(), "sums": {"": trainer.all_sums}, "optimiser": {}}
    if trainer.learner is not trainer.model:
        groups["learner"] = trainer.learner.state_dict()
    for k, optimiser in enumerate(trainer.optimisers):
        for i, values in optimiser.state_dict()["state"].items():
            groups["optimiser"] |= {f"{k}.{i}.{name}": value for name, value in values.items()}
    return groups, {"step": trainer.step, "seconds": trainer.seconds, "scaler": trainer.scaler.state_dict()}


def restore(trainer: Trainer, groups: Groups, numbers: dict) -> None:
    """Let a fresh trainer continue from what `state_of` gave.

    Raises:
        ValueError: it is not the state of such a run; the trainer is unchanged then.
    """
    check_numbers(numbers)
    groups = {**groups, "sums": {name: spread(t, trainer.n_processes) for name, t in groups.get("sums", {}).items()}}
    check_tensors(groups, expected_state(trainer, numbers["step"]))
    trainer.model.load_state_dict(groups["model"])
    trainer.learner.load_state_dict(groups.get("learner", groups["model"]))
    states = [optimiser.state_dict() for optimiser in trainer.optimisers]
    for name, value in groups.get("optimiser", {}).items():
        k, i, key = name.split(".")
        states[int(k)]["state"].setdefault(int(i), {})[key] = value
    for optimiser, state in zip(trainer.optimisers, states, strict=True):
        optimiser.load_state_dict(state)
    if numbers["scaler"]:  # empty after steps in another precision than fp16, which need no scale
        trainer.scaler.load_state_dict(numbers["scaler"])
    trainer.all_sums = groups["sums"][""].to(trainer.device)
    trainer.sums = trainer.all_sums[trainer.rank].clone()
    trainer.step, trainer.seconds = numbers["step"], numbers["seconds"]


def spread(sums: Tensor, n_processes: int) -> Tensor:
    """The sums of each process [n_processes, 2]; where others were stored, the first process gets them all.

    Stored are those of each process [n, 2], or by earlier versions of all together [2]; other shapes stay as they are.
    """
    if sums.shape == (2,):
        sums = sums[None]  # [1, 2]
    if sums.dim() != 2 or sums.shape[1] != 2 or len(sums) == n_processes:
        return sums
    whole = sums.new_zeros(n_processes, 2)
    whole[0] = sums.sum(dim=0)
    return whole


def expected_state(trainer: Trainer, step: int) -> Groups:
    """Tensors with the names, shapes and types of those that a fresh trainer will have after so many steps."""
    groups, _ = state_of(trainer)
    for k, optimiser in enumerate(trainer.optimisers if step else []):
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for i, parameter in enumerate(parameters):
            groups["optimiser"] |= {f"{k}.{i}.{name}": parameter for name in MOMENTS[type(optimiser)]}
            if isinstance(optimiser, torch.optim.AdamW):
                groups["optimiser"][f"{k}.{i}.step"] = torch.zeros(())
    return groups


def check_tensors(found: Groups, expected: Groups) -> None:
    """Raise ValueError unless the expected tensors are there, in their shapes and types, and no others beside them."""

    def described(groups: Groups) -> dict[str, str]:
        there = {group: groups.get(group, {}) for group in ("model", "learner", "optimiser", "sums")}
        return {
            f"{group} {name}".strip(): f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for group, named in there.items()
            for name, tensor in named.items()
        }

    try:
        check_same(described(found), described(expected))
    except ValueError as error:
        raise ValueError(f"this is no run of such a model and recipe: its {error}; start a new run") from None


def check_numbers(numbers: dict) -> None:
    """Raise ValueError unless the numbers of a state are such."""
    step, seconds, scaler = numbers["step"], numbers["seconds"], numbers["scaler"]
    if type(step) is not int or step < 0:
        raise ValueError(f"the run to resume has done {step!r} steps, which is no number of steps; start a new run")
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 <= seconds < math.inf:
        raise ValueError(f"the run to resume took {seconds!r} seconds, which is no time; start a new run")
    wanted = torch.amp.GradScaler("cpu").state_dict()
    if scaler and (
        not isinstance(scaler, dict)
        or scaler.keys() != wanted.keys()
        or not all(isinstance(value, Real) and 0 <= value < math.inf for value in scaler.values())
    ):
        raise ValueError(f"the gradient scale of the run to resume is {scaler!r}, which is none; start a new run")
