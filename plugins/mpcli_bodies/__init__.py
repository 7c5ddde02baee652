"""Chapter 9. Body models: people as shape and pose.

smpl: a learned body: blend shapes, a skeleton, skinning
smplify: finding the body behind keypoints, joints or a scan
"""
