"""Generation as an inverse problem: Gaussian white codes of images, and images from codes."""

from wavemill.generation.convolutional import ConvolutionalGenerator
from wavemill.generation.embedding import Embedding
from wavemill.generation.generator import Generator
from wavemill.generation.linear import LinearGenerator
from wavemill.generation.metrics import psnr, relative_distance, ssim
from wavemill.generation.rectified import RectifiedWavelets
from wavemill.generation.samples import RealImages, crops
from wavemill.generation.sparse import SparseInversion
from wavemill.generation.training import Trainer
from wavemill.generation.whitening import Whitening, marchenko_pastur, whiteness

__all__ = [
    "ConvolutionalGenerator",
    "Embedding",
    "Generator",
    "LinearGenerator",
    "RealImages",
    "RectifiedWavelets",
    "SparseInversion",
    "Trainer",
    "Whitening",
    "crops",
    "marchenko_pastur",
    "psnr",
    "relative_distance",
    "ssim",
    "whiteness",
]
