"""DINOv3's vision transformers (ViT-S, ViT-B, ViT-L): features of single images, weights from a local folder."""
