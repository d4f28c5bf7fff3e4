"""Make small Hugging Face pipelines, a folder per task: python make_hugging_face.py [FOLDER]

Needs torch, transformers<5 and pillow. Weights are random; tokenizers are real ones, trained on a few sentences. Zip
what is in a folder before the upload.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "a house by the sea is dear and a house in the town is not",
    "he walked along the river to the old town",
    "I love this film",
    "I hate this film",
    "what is the name of the town?",
]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SHORT = {"max_new_tokens": 6, "num_beams": 1}
LABELS = {0: "contradiction", 1: "neutral", 2: "entailment"}
IMAGE = {"height": 16, "width": 16}


def words(**more):
    """A tokenizer as BERT has it: [CLS] text [SEP]."""
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(names.values())))
    ends = [(token, made.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    made.post_processor = processors.BertProcessing(*ends)
    special = {f"{name}_token": token for name, token in names.items()}
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **special, **more)


def pieces():
    """A tokenizer as GPT-2 and BART have it, of pieces of bytes."""
    names = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=list(names.values()), initial_alphabet=alphabet)
    )
    special = {f"{name}_token": token for name, token in names.items()}
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **special)


def bert(kind, **more):
    tokenizer = words()
    config = hf.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=0, **SMALL, **more)
    return {"model": kind(config), "tokenizer": tokenizer}


def gpt():
    tokenizer = pieces()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = hf.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64, initializer_range=1.0, **ends
    )
    return {"model": hf.GPT2LMHeadModel(config), "tokenizer": tokenizer}


def bart(task):
    tokenizer = pieces()
    sizes = {"d_model": 16, "max_position_embeddings": 128, "init_std": 1.0}
    for part in ("encoder", "decoder"):
        sizes.update({f"{part}_layers": 1, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 16})
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = hf.BartConfig(
        vocab_size=len(tokenizer), forced_eos_token_id=2, task_specific_params={task: SHORT}, **sizes, **ids
    )
    model = hf.BartForConditionalGeneration(config)
    model.final_logits_bias[0, :4] = -1000.0  # random weights would say nothing but special tokens
    return {"model": model, "tokenizer": tokenizer}


def vit():
    config = hf.ViTConfig(image_size=16, patch_size=8, num_labels=4, **SMALL)
    return {"model": hf.ViTForImageClassification(config), "image_processor": hf.ViTImageProcessor(size=IMAGE)}


def yolos():
    config = hf.YolosConfig(image_size=[32, 32], patch_size=8, num_detection_tokens=5, num_labels=3, **SMALL)
    processor = hf.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 32})
    return {"model": hf.YolosForObjectDetection(config), "image_processor": processor}


def segformer():
    each = {"depths": [1] * 4, "num_attention_heads": [1] * 4, "sr_ratios": [1] * 4}
    config = hf.SegformerConfig(hidden_sizes=[4, 4, 8, 8], decoder_hidden_size=8, num_labels=3, **each)
    processor = hf.SegformerImageProcessor(size={"height": 64, "width": 64})
    return {"model": hf.SegformerForSemanticSegmentation(config), "image_processor": processor}


def clip():
    tokenizer = words(model_input_names=["input_ids", "attention_mask"])
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "bos_token_id": 2, "eos_token_id": 3, **SMALL}
    config = hf.CLIPConfig(
        text_config=text, vision_config={"image_size": 16, "patch_size": 8, **SMALL}, projection_dim=8
    )
    processor = hf.CLIPImageProcessor(size=IMAGE, crop_size=IMAGE)
    return {"model": hf.CLIPModel(config), "tokenizer": tokenizer, "image_processor": processor}


def owl():
    tokenizer = words(model_input_names=["input_ids", "attention_mask"])
    tokenizer.model_max_length = 16
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3, **SMALL}
    config = hf.OwlViTConfig(
        text_config=text, vision_config={"image_size": 32, "patch_size": 8, **SMALL}, projection_dim=16
    )
    size = {"height": 32, "width": 32}
    processor = hf.OwlViTImageProcessor(size=size, crop_size=size)
    return {"model": hf.OwlViTForObjectDetection(config), "tokenizer": tokenizer, "image_processor": processor}


def captions():
    decoder = gpt()
    config = decoder["model"].config
    config.add_cross_attention, config.is_decoder = True, True
    model = hf.VisionEncoderDecoderModel(
        encoder=hf.ViTModel(hf.ViTConfig(image_size=16, patch_size=8, **SMALL)), decoder=hf.GPT2LMHeadModel(config)
    )
    model.generation_config = hf.GenerationConfig(
        decoder_start_token_id=0, bos_token_id=0, pad_token_id=1, eos_token_id=2
    )
    model.config.decoder_start_token_id, model.config.pad_token_id = 0, 1
    return {
        "model": model,
        "tokenizer": decoder["tokenizer"],
        "image_processor": hf.ViTImageProcessor(size=IMAGE),
    }


def speech(folder):
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = hf.Wav2Vec2CTCTokenizer(str(vocabulary))
    vocabulary.unlink()
    layers = {"conv_dim": [8, 8], "conv_stride": [5, 4], "conv_kernel": [10, 8], "num_feat_extract_layers": 2}
    config = hf.Wav2Vec2Config(
        vocab_size=len(letters), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, **layers, **SMALL
    )
    return {
        "model": hf.Wav2Vec2ForCTC(config),
        "tokenizer": tokenizer,
        "feature_extractor": hf.Wav2Vec2FeatureExtractor(),
    }


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    entails = {"num_labels": 3, "id2label": LABELS, "label2id": {label: i for i, label in LABELS.items()}}
    makers = {
        "text-classification": lambda: bert(hf.BertForSequenceClassification, num_labels=3),
        "zero-shot-classification": lambda: bert(hf.BertForSequenceClassification, **entails),
        "question-answering": lambda: bert(hf.BertForQuestionAnswering),
        "feature-extraction": lambda: bert(hf.BertModel),
        "text-generation": gpt,
        "summarization": lambda: bart("summarization"),
        "translation": lambda: bart("translation"),
        "image-classification": vit,
        "object-detection": yolos,
        "image-segmentation": segformer,
        "zero-shot-image-classification": clip,
        "zero-shot-object-detection": owl,
        "image-to-text": captions,
        "automatic-speech-recognition": lambda: speech(folder),
    }
    for task, parts in makers.items():
        hf.pipeline(task, **parts()).save_pretrained(str(folder / task))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
