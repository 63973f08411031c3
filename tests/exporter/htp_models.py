"""A dozen tiny models that each defeat some way of telling which module a node came from, traced and written in memory.

What is special about each stands beside it. Exported without the checks of an export: these tests look at tags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from modelexport import module_parity, weights
from modelexport.convert import _merge
from modelexport.htp.branches import branches
from modelexport.htp.hierarchy import Hierarchy
from modelexport.module_parity import ModuleParity
from modelexport.module_parity.reference import record
from modelexport.parity import references
from modelexport.parity.cases import Case, Preprocessors
from modelexport.parity.references import Interface
from modelexport.plan import GraphPlan, opset_of, plan
from modelexport.tracing import trace_graph
from tests.exporter.tiny import perturb

_TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 130,
}
_PAIR = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "max_position_embeddings": 130,
}
_VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
_DISENTANGLED = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "share_att_key": True,
}
_SOUND = {
    "vocab_size": 40,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 8, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_WINDOWS = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
_CLIP = {"text_config": {**_TEXT, "eos_token_id": 2}, "vision_config": {**_VISION, "image_size": 32, "patch_size": 8}}

_SCRATCH = TemporaryDirectory(prefix="modelexport-htp-")  # as long as the process

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("AutoModel", "feature-extraction", _TEXT),
    "albert": ("AutoModel", "feature-extraction", {**_TEXT, "embedding_size": 16}),  # one layer, called twice
    "deberta-v2": ("AutoModel", "feature-extraction", {**_TEXT, **_DISENTANGLED}),  # scripted functions
    "roberta": ("AutoModelForMaskedLM", "fill-mask", _TEXT),  # a decoder tied to the embeddings
    "gpt2": (
        "AutoModelForCausalLM",
        "text-generation-with-past",
        {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 130},
    ),
    "llama": ("AutoModelForCausalLM", "text-generation-with-past", {**_TEXT, "num_key_value_heads": 2}),
    "deepseek_v3": (  # a mixture of experts, which a router chooses in no particular order
        "AutoModelForCausalLM",
        "text-generation-with-past",
        {
            **_TEXT,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 24,
            "q_lora_rank": 12,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 12,
            "n_routed_experts": 12,
            "num_experts_per_tok": 3,
            "n_group": 2,
            "topk_group": 2,
            "first_k_dense_replace": 1,
        },
    ),
    "bart": ("AutoModelForSeq2SeqLM", "text2text-generation-with-past", _PAIR),  # two attentions of one class
    "t5": (  # embeddings that encoder and decoder share, in graphs of their own
        "AutoModelForSeq2SeqLM",
        "text2text-generation-with-past",
        {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4},
    ),
    "resnet": (  # a Sequential that is called
        "AutoModelForImageClassification",
        "image-classification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2]},
    ),
    "vit": ("AutoModelForImageClassification", "image-classification", {**_VISION, "image_size": 32, "patch_size": 8}),
    "swin": ("AutoModelForImageClassification", "image-classification", _WINDOWS),  # assignments to slices
    "clip": ("AutoModelForZeroShotImageClassification", "zero-shot-image-classification", _CLIP),
    "wav2vec2": ("AutoModelForCTC", "automatic-speech-recognition", {**_VISION, **_SOUND}),  # weight norm
}


@dataclass(frozen=True)
class Exported:
    """A model and its graphs on disk.

    Attributes:
        files: by stem.
        plans: by name.
        cases: by name of the plan.
    """

    model: PreTrainedModel
    hierarchy: Hierarchy
    files: Mapping[str, Path]
    plans: Mapping[str, GraphPlan]
    cases: Mapping[str, Sequence[Case]]

    @property
    def file(self) -> Path:
        """The only file."""
        (file,) = self.files.values()
        return file

    def load(self) -> ir.Model:
        """The only graph, to change at will."""
        return ir.load(self.file)


def build(name: str) -> tuple[PreTrainedModel, str]:
    """The seeded model and its task."""
    auto_class, task, config = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_config(AutoConfig.for_model(name, **config))
    perturb(model)
    return model.eval().requires_grad_(False), task


@cache
def exported(name: str) -> Exported:
    """The model, traced and written; shared by all tests, so change no file in place."""
    model, task = build(name)
    plans = plan(model, task)
    hierarchy = Hierarchy(model)
    graphs = {item.name: trace_graph(item, hierarchy, opset_of(plans, None), lambda _: None) for item in plans}
    interfaces = {
        key: Interface(tuple(str(v.name) for v in graph.graph.inputs), tuple(str(v.name) for v in graph.graph.outputs))
        for key, graph in graphs.items()
    }
    folder = Path(_SCRATCH.name) / name
    folder.mkdir()
    files = {}
    for stem, graph in _merge(graphs, hierarchy).items():
        files[stem] = folder / f"{stem}.onnx"
        weights.write(graph, files[stem])
    cases = {item.name: made for item, made in references.cases(plans, interfaces, Preprocessors())}
    return Exported(model, hierarchy, files, {item.name: item for item in plans}, cases)


def module_parities(name: str, folder: Path) -> list[ModuleParity]:
    """Per-module parity of every graph of a model, on its last case."""
    subject = exported(name)
    found = []
    for stem, file in subject.files.items():
        for branch in branches(ir.load(file)):
            key = {"then_branch": "decoder_with_past_model", "else_branch": "decoder_model"}.get(branch.name, stem)
            (scratch := folder / key).mkdir()
            case = subject.cases[key][-1]
            recording = record(subject.plans[key], case, subject.hierarchy, scratch)
            found.append(module_parity.compare(branch, file, case.name, recording, 1e-4))
    return found
