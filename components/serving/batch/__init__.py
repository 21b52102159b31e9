"""Scores of many images through Apache Beam."""
