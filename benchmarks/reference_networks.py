"""Parameters and multiply-accumulates of the networks that our results stand beside, for four seconds of speech.

    pip install transformers
    python benchmarks/reference_networks.py

Counted on the architectures as Transformers builds them from their published sizes; no weights are needed, and no
memory: everything happens on PyTorch's meta device. Whisper pads whatever it hears to 30 s, so it is counted on that.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperModel,
)

from vervet.config import NETWORKS
from vervet.models.vit import VisionTransformer

LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True,
}  # fmt: skip
WHISPER_LARGE = {
    "num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
    "decoder_layers": 1, "decoder_attention_heads": 20, "decoder_ffn_dim": 5120,
}  # fmt: skip


def main():
    waveform = (1, 64_000)
    with torch.device("meta"):
        networks = {
            "Vervet student": (VisionTransformer(NETWORKS["student"], 7), (1, 1, 128, 128)),
            "Vervet teacher": (VisionTransformer(NETWORKS["teacher"], 7), (1, 1, 128, 128)),
            "wav2vec2-base": (Wav2Vec2Model(Wav2Vec2Config(mask_time_prob=0.0)), waveform),
            "HuBERT-base": (HubertModel(HubertConfig(mask_time_prob=0.0)), waveform),
            "WavLM-base+": (WavLMModel(WavLMConfig(mask_time_prob=0.0)), waveform),
            "WavLM-large": (WavLMModel(WavLMConfig(mask_time_prob=0.0, **LARGE)), waveform),
            "Whisper-large-v3 encoder": (WhisperModel(WhisperConfig(**WHISPER_LARGE)).encoder, (1, 128, 3000)),
        }
    print(f"{'network':26} {'parameters, M':>14} {'multiply-accumulates, G':>24}")
    for name, (network, shape) in networks.items():
        parameters = sum(parameter.numel() for parameter in network.parameters())
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.zeros(shape))
        print(f"{name:26} {parameters / 1e6:14.1f} {counter.get_total_flops() / 2e9:24.2f}")


if __name__ == "__main__":
    main()
