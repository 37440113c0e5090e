"""Client and server classifiers: families at any width, their structure, their sub-models.

``registry`` and ``widths`` import no torch, so that listing and validating stay fast.
"""
