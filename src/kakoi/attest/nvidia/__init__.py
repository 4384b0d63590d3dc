"""NVIDIA GPUs and switches: SPDM measurement reports. An extra beside a CPU's evidence, not a platform of its own."""
