# SPDX-License-Identifier: Apache-2.0
"""The main path: design, build, verify, measure, report; what the command line calls."""
