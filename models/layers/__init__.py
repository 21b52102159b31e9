"""Layers of the models. They can be serialised, take any shape and never give NaN."""

from models.layers.attention_capsules import AttentionCapsules
from models.layers.capsule_length import CapsuleLength
from models.layers.capsule_mask import CapsuleMask
from models.layers.class_capsules import ClassCapsules, dynamic_routing
from models.layers.class_centres import ClassCentres
from models.layers.conformal_calibration import ConformalCalibration
from models.layers.depthwise_capsules import DepthwiseCapsules
from models.layers.em_capsules import ClassEmCapsules, ConvolutionalEmCapsules, em_routing
from models.layers.geometric_transformations import GeometricTransformations
from models.layers.image_preprocessing import ImagePreprocessing
from models.layers.imagenet_scaling import ImageNetScaling
from models.layers.nearest_neighbours import NearestNeighbours
from models.layers.patch_distance import PatchDistance
from models.layers.primary_capsules import PrimaryCapsules
from models.layers.rbf_one_class import RbfOneClass
from models.layers.relative_mahalanobis import RelativeMahalanobis
from models.layers.squash import exponential_squash, squash, vector_length
from models.layers.standardisation import standardisation
from models.layers.trim_batch import TrimBatch

__all__ = [
    "AttentionCapsules",
    "CapsuleLength",
    "CapsuleMask",
    "ClassCapsules",
    "ClassCentres",
    "ClassEmCapsules",
    "ConformalCalibration",
    "ConvolutionalEmCapsules",
    "DepthwiseCapsules",
    "GeometricTransformations",
    "ImageNetScaling",
    "ImagePreprocessing",
    "NearestNeighbours",
    "PatchDistance",
    "PrimaryCapsules",
    "RbfOneClass",
    "RelativeMahalanobis",
    "TrimBatch",
    "dynamic_routing",
    "em_routing",
    "exponential_squash",
    "squash",
    "standardisation",
    "vector_length",
]
