"""Chapter 1. Networks: from the perceptron to what every later chapter is built of.

perceptron: a line moved by its mistakes
maximum_likelihood: a distribution, its parameters, and -log p as the loss
mlp: layers, and backpropagation through them
regularization: penalties, dropout, standardised inputs, batch normalisation
ensemble: bootstraps, and models of several classes, averaged
optimizers: ten ways down the same slope
filters: correlation, convolution, and what is neither
hmax: simple and complex cells, in turn
cnn: windows of weights, pooling, a read-out; shapes, FLOPs, receptive fields
vgg: stacks of 3x3 under dense layers, and AlexNet
googlenet: windows side by side behind bottlenecks, and heads on the way
resnet: blocks that add to what they are given
heads: one object's box, every object, where an eye looks
fcn: a class for every pixel, and four ways up
unet: down and up, with copies beside
architectures: what networks are made of, what each layer costs and sees
"""
