"""Models that see."""

from dataclasses import replace
from typing import Any

from tests.zoo.animal import Animal, Sizes, Task

VIT: Sizes = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "image_size": 32,
    "patch_size": 8,
}
CLASSIFY_IMAGE = ("feature-extraction", "image-classification")
_SQUARE = {"height": 32, "width": 32}
_TIMMLESS: Sizes = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
_RESNET: Sizes = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
_DETR: Sizes = {
    **_TIMMLESS,
    "backbone_config": {**_RESNET, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "num_queries": 7,
    "num_labels": 3,
}
_RT_DETR: Sizes = {
    "use_timm_backbone": False,
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 12, 16, 20],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [12, 16, 20],
    "encoder_ffn_dim": 37,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 37,
    "decoder_in_channels": [32, 32, 32],
    "num_queries": 20,
    "num_denoising": 0,
    "num_labels": 3,
    "anchor_image_size": None,
}
_SWIN: Sizes = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "encoder_stride": 8,
}
_MASKFORMER: Sizes = {
    "fpn_feature_size": 32,
    "mask_feature_size": 32,
    "backbone_config": {"model_type": "swin", **_SWIN, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 4, 4]},
    "decoder_config": {**{k: v for k, v in _DETR.items() if "backbone" not in k}, "model_type": "detr"},
}
_ANY_SIZE: tuple[str, Sizes] = (  # whole multiples of 32, as large as each batch needs
    "MaskFormerImageProcessor",
    {"size": {"shortest_edge": 40, "longest_edge": 90}, "size_divisor": 32},
)


def _image(
    model_type: str,
    tasks: tuple[Task, ...] = CLASSIFY_IMAGE,
    base: Sizes | None = None,
    gain: float = 4.0,
    **config: Any,
) -> Animal:
    sizes = {**(VIT if base is None else base), **config}
    side = sizes.get("image_size", 64)
    size = {"height": side, "width": side} if isinstance(side, int) else {"height": side[0], "width": side[1]}
    return Animal(model_type, tasks, sizes, image=("ViTImageProcessor", {"size": size}), gain=gain)


IMAGES = (
    _image("beit"),
    _image("clip_vision_model", ("feature-extraction",)),
    _image("convnext", base={"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}),
    _image("convnextv2", base={"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}),
    _image(
        "cvt",
        base={"embed_dim": [8, 12, 16], "num_heads": [1, 2, 4], "depth": [1, 2, 3], "cls_token": [False, False, True]},
    ),
    _image("data2vec-vision"),
    _image("d_fine", ("object-detection",), _RT_DETR, gain=12.0),
    _image("deit", (*CLASSIFY_IMAGE, "masked-im"), encoder_stride=8),
    _image("detr", ("object-detection", "image-segmentation"), _DETR),
    _image("dinov2"),
    _image("donut-swin", ("feature-extraction",), _SWIN),
    _image(
        "dpt",
        ("depth-estimation", "semantic-segmentation"),
        backbone_out_indices=[0, 1, 2, 3],
        num_hidden_layers=4,
        neck_hidden_sizes=[8, 12, 16, 20],
        fusion_hidden_size=16,
    ),
    _image(
        "efficientnet",
        base={"image_size": 32, "width_coefficient": 0.3, "depth_coefficient": 0.2, "hidden_dim": 384, "num_labels": 5},
    ),
    _image(
        "glpn",
        ("depth-estimation",),
        {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
        decoder_hidden_size=16,
    ),
    _image(
        "hiera",
        base={"image_size": [32, 32], "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]},
        patch_stride=[4, 4],
        masked_unit_size=[8, 8],
    ),
    _image(
        "levit",
        base={
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    _image("maskformer", ("image-segmentation",), _MASKFORMER),
    Animal("maskformer", ("image-segmentation",), _MASKFORMER, image=_ANY_SIZE, variant="its own processor"),
    Animal(
        "maskformer",
        ("image-segmentation",),
        {**_MASKFORMER, "backbone_config": {**_RESNET, "out_features": ["stage1", "stage2", "stage3", "stage4"]}},
        image=_ANY_SIZE,
        variant="ResNet",
    ),
    _image(
        "mgp-str",
        ("feature-extraction",),
        {
            "image_size": [32, 128],
            "patch_size": [4, 8],
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        num_character_labels=20,
        num_bpe_labels=50,
        num_wordpiece_labels=40,
        mlp_ratio=2.0,
    ),
    replace(
        _image(
            "mgp-str",
            ("feature-extraction",),
            {"image_size": [32, 128], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        ),
        variant="published sizes",
    ),
    _image("mobilenet_v1", base={"image_size": 32, "depth_multiplier": 0.25}),
    _image("mobilenet_v2", base={"image_size": 32, "depth_multiplier": 0.25}),
    _image(
        "mobilevit",
        (*CLASSIFY_IMAGE, "image-segmentation"),
        {"image_size": 64, "hidden_sizes": [16, 20, 24], "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 32]},
        num_attention_heads=4,
    ),
    _image("poolformer", base={"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}),
    _image(
        "pvt",
        base={
            "image_size": 64,
            "hidden_sizes": [8, 16, 32, 40],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 4],
        },
    ),
    _image(
        "regnet", base={"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "groups_width": 4}
    ),
    _image("resnet", base={k: v for k, v in _RESNET.items() if k != "model_type"}),
    _image("rt_detr", ("object-detection",), _RT_DETR, gain=8.0),
    _image("rt_detr_v2", ("object-detection",), _RT_DETR, gain=8.0),
    _image(
        "segformer",
        (*CLASSIFY_IMAGE, "semantic-segmentation"),
        {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
        decoder_hidden_size=16,
    ),
    _image("siglip_vision_model", ("feature-extraction",)),
    _image("swin", (*CLASSIFY_IMAGE, "masked-im"), _SWIN),
    _image("swin2sr", ("image-to-image",), _SWIN, patch_size=1, upscale=2),
    _image("swinv2", base=_SWIN),
    _image("table-transformer", ("object-detection",), _DETR),
    _image("vit", (*CLASSIFY_IMAGE, "masked-im"), encoder_stride=8),
    _image("vit_mae", ("feature-extraction",), decoder_hidden_size=16, decoder_num_hidden_layers=1),
    _image("vit_msn"),
    Animal(
        "vitpose",
        ("keypoint-detection",),
        {
            "backbone_config": {
                "model_type": "vitpose_backbone",
                **VIT,
                "image_size": [64, 48],
                "patch_size": [16, 16],
                "out_features": ["stage2"],
            },
            "num_labels": 5,
            "scale_factor": 4,
        },
        image=("VitPoseImageProcessor", {"size": {"height": 64, "width": 48}}),
    ),
    _image("yolos", ("object-detection",), image_size=[32, 48], num_detection_tokens=7, num_labels=3),
)
