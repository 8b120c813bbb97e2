# SPDX-License-Identifier: Apache-2.0
"""Autotuning: tiles are measured in a process of their own and kept in a database."""
