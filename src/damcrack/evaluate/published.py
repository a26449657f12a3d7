"""What the paper prints in its tables 1 and 2 (Zhang & Bao 2023, Water 15, 2839), as shares; typed here only."""

# (network, what taught it): validation accuracy on mini-ImageNet
PAPER_TABLE_1 = {
    ("resnet18", "labels"): 0.7941,
    ("resnet50", "labels"): 0.8179,
    ("resnet18", "fixed T = 4"): 0.8233,
    ("resnet18", "dynamic T"): 0.8252,
}
# training minus validation accuracy; none is printed for the ResNet50
PAPER_GAPS = {
    ("resnet18", "labels"): 0.1403,
    ("resnet18", "fixed T = 4"): 0.1261,
    ("resnet18", "dynamic T"): 0.1016,
}
PAPER_FINAL_TEMPERATURE = 3.95
# (network, what it started as): accuracy on the crack tiles. The paper does not say whether its distilled network had
# a teacher in the crack stage too, nor whether its CBAM, AlexNet and VGG16 were pretrained: they stand next to both.
PAPER_TABLE_2 = {
    ("resnet18", "scratch"): 0.9493,
    ("resnet18", "pretrained"): 0.9607,
    ("resnet50", "scratch"): 0.9556,
    ("resnet50", "pretrained"): 0.9862,
    ("resnet18", "distilled, dynamic T"): 0.9985,
    ("resnet18_cbam", "scratch"): 0.9880,
    ("resnet18_cbam", "pretrained"): 0.9880,
    ("alexnet", "scratch"): 0.9702,
    ("alexnet", "pretrained"): 0.9702,
    ("vgg16", "scratch"): 0.9493,
    ("vgg16", "pretrained"): 0.9493,
}
