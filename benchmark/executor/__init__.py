"""Executors: how runs are computed; each in a process of its own that can be killed."""

from benchmark.executor.base import Event, Executor, Job, OnEvent, Outcome
from benchmark.executor.serial import SerialExecutor
from benchmark.executor.worker import EventSender

__all__ = ["Event", "EventSender", "Executor", "Job", "OnEvent", "Outcome", "SerialExecutor"]
