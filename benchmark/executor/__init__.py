"""Executors: how runs are computed; each in a process of its own that can be killed."""

from benchmark.executor.base import Event, Executor, Job, OnEvent, Outcome
from benchmark.executor.pool import PoolExecutor
from benchmark.executor.worker import EventSender

__all__ = ["Event", "EventSender", "Executor", "Job", "OnEvent", "Outcome", "PoolExecutor"]
