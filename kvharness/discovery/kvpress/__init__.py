"""Presses of NVIDIA/kvpress as policies."""
