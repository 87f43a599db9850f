"""timm's architectures, one small model of each, made fit for comparison
(:mod:`tests.zoo.randomise`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.zoo.randomise import randomise

_MODELS = """
bat_resnext26ts beit_base_patch16_224 botnet26t_256
caformer_s18 cait_xxs24_224 coat_lite_tiny coat_tiny coatnext_nano_rw_224 convformer_s18 convit_tiny
convmixer_768_32 convnext_atto convnextv2_atto cpubone_nano crossvit_tiny_240 cs3darknet_focus_s
cs3sedarknet_l csatv2 cspdarknet53 cspnext_tiny cspresnet50 cspresnext50 darknet53 davit_tiny
deit3_small_patch16_224 deit_tiny_distilled_patch16_224 densenet121 densenetblur121d dla46x_c
dla60_res2net dpn48b eca_botnext26ts_256 eca_halonext26ts eca_resnet33ts eca_vovnet39b
ecaresnext26t_32x4d edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0
efficientnet_es efficientnet_lite0 efficientvim_m1 efficientvit_b0 efficientvit_l1 efficientvit_m0
ese_vovnet19b_slim_dw eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 fbnetc_100 fbnetv3_b
flexivit_small focalnet_tiny_srf gcresnext26ts gcvit_xxtiny gemma4_vit_167m gernet_s ghostnet_050
ghostnetv2_100 ghostnetv3_050 gmixer_12_224 gmlp_ti16_224 halonet_h1 haloregnetz_b hardcorenas_b
hgnet_tiny hgnetv2_b0 hiera_tiny_224 hieradet_small hrnet_w18_small iformer_t inception_next_atto
inception_resnet_v2 inception_v3 inception_v4 lambda_resnet26t lamhalobotnet50ts_256 lcnet_035
lcnetv2_small legacy_seresnet18 legacy_seresnext26_32x4d legacy_xception levit_128s levit_conv_128s
lowformer_b0 mambaout_femto maxvit_pico_rw_256 maxvit_rmlp_pico_rw_256 maxxvit_rmlp_nano_rw_256
mixer_s32_224 mixnet_s mnasnet_small mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050
mobilenetv4_conv_small mobilenetv4_hybrid_medium mobilenetv5_base mobileone_s2 mobilevit_xxs
mobilevitv2_050 mvitv2_tiny naflexvit_base_patch16_gap
nasnetalarge nest_tiny nextvit_small nf_regnet_b0 nf_resnet26 nfnet_l0 pit_ti_distilled_224
pnasnet5large poolformer_s12 poolformerv2_s12 pvt_v2_b0 pvt_v2_b2_li qwen3_vit_88m rdnet_tiny
regnetv_040 regnetx_002 regnety_002 regnetz_b16 repghostnet_050 repvgg_a0 repvit_m1 res2next50
resmlp_12_224 resnest14d resnet14t resnet33ts resnetaa50 resnetrs50 resnetv2_18 resnetv2_50x1_bit
rexnet_100 sam2_hiera_tiny samvit_base_patch16_224 sebotnet33ts_256 selecsls42 semnasnet_075
sequencer2d_s seresnet33ts shvit_s1 skresnet18 skresnext50_32x4d spnasnet_100 starnet_s050
swiftformer_xs swin_s3_tiny_224 swin_tiny_patch4_window7_224 swinv2_cr_tiny_224
swinv2_tiny_window8_256 test_byobnet test_coatnet test_efficientnet_evos test_efficientnet_gn
test_efficientnet_ln test_nfnet test_vit3 test_vit4 test_vit_relpos tf_efficientnetv2_b0
tiny_vit_5m_224 tinynet_e tnt_s_patch16_224 tresnet_m twins_pcpvt_small twins_svt_small vgg11_bn
visformer_tiny vit_small_patch14_reg4_dinov2 vit_srelpos_small_patch16_224 vit_tiny_patch16_224
vit_tiny_patch16_dinov3_qkvb vit_tiny_r_s16_p8_224 vit_wee_patch16_reg1_gap_256 vitamin_small_224
volo_d1_224 wide_resnet50_2 xception41p xcit_nano_12_p16_224
"""
_SIZES = {  # of images, where the model was made for larger ones than it needs
    "csatv2": 256,
    "gemma4_vit_167m": 192,
    "naflexvit_base_patch16_gap": 224,
    "nasnetalarge": 224,
    "pnasnet5large": 224,
    "qwen3_vit_88m": 256,
    "sam2_hiera_tiny": 256,
    "vit_small_patch14_reg4_dinov2": 224,
}
_OPTIONS: dict[str, dict[str, Any]] = {  # a quarter of the depth where there is no small model
    "beit_base_patch16_224": {"depth": 3},
    "gemma4_vit_167m": {"depth": 4},
    "naflexvit_base_patch16_gap": {"depth": 3},
    "qwen3_vit_88m": {"depth": 3},
    "samvit_base_patch16_224": {"depth": 3},
    "vit_small_patch14_reg4_dinov2": {"img_size": 224},  # it has to be told
}


def names() -> list[str]:
    """The names of the models, one or a few for each of timm's modules."""
    return _MODELS.split()


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A timm model in eval mode, randomised."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, **_OPTIONS.get(name, {}))
    randomise(model, seed, *example_inputs(name, batch=2, seed=seed))
    return model.eval().to(dtype)


def example_inputs(name: str, batch: int = 1, seed: int = 0) -> tuple[Any, ...]:
    """Images of the size that the model is made for, or smaller ones; standard normal."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    usual = config.input_size if config else (3, 224, 224)
    shape = (3, *2 * (_SIZES[name],)) if name in _SIZES else usual
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, *shape, generator=generator),)
