"""Tests of limits by address."""
