"""Scores many images with Apache Beam."""
