"""A drafter of a GGUF file as a PyTorch module, with low-rank adapters in all its layers.

transformers reads the file and has the architecture, peft puts the adapters in (LoRA, Hu et al.
2021, arXiv 2106.09685).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from edgespec.errors import ModelFileError


class Network:
    """The drafter without its head, which does not learn. head: [V, d].

    parameters: what learns, nothing before `adapt`.
    Raises: ModelFileError for what transformers does not read.
    """

    def __init__(self, path: Path) -> None:
        try:
            with redirect_stderr(io.StringIO()):  # bars of its own
                self._model: Any = AutoModelForCausalLM.from_pretrained(
                    str(path.parent), gguf_file=path.name, dtype=torch.float32
                )
        except (ValueError, OSError, KeyError) as error:
            raise ModelFileError(
                f"{path} cannot be read for training ({error}): expected a model that transformers "
                "reads from GGUF, such as a Llama or a Qwen"
            ) from error
        self._body: Any = self._model.model
        self._layers: list[Any] = list(self._body.layers)
        self.head: Tensor = self._model.get_output_embeddings().weight.detach()
        self.parameters: list[Tensor] = []

    @property
    def n_layers(self) -> int:
        """Layers of the file."""
        return len(self._layers)

    def use(self, layers: Sequence[int]) -> None:
        """Compute with these layers alone; before `adapt`."""
        self._body.layers = torch.nn.ModuleList([self._layers[i] for i in layers])
        self._model.config.num_hidden_layers = len(layers)

    def adapt(self, rank: int, seed: int = 0) -> None:
        """Put adapters into every matrix of the layers; they begin without effect."""
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of peft about transformers
            self._model = get_peft_model(self._model, config)
        self.parameters = [one for one in self._model.parameters() if one.requires_grad]

    def hidden(self, ids: Tensor) -> Tensor:
        """States [B, T, d] after the last norm, of ids [B, T], padded at their ends."""
        return self._body(input_ids=ids, use_cache=False).last_hidden_state

    def state(self) -> dict[str, Tensor]:
        """The adapters by name."""
        named = self._model.named_parameters()
        return {name: one.detach().clone() for name, one in named if one.requires_grad}

    def become(self, state: dict[str, Tensor]) -> None:
        """Put adapters in, as `state` gave them."""
        named = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, value in state.items():
                named[name].copy_(value)

    def save(self, folder: Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a GGUF has no config.json
            self._model.save_pretrained(str(folder), safe_serialization=True)
