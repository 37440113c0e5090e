"""Shared building blocks of data-free distillation; not plugins themselves."""
