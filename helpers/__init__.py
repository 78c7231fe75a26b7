"""What the notebooks call: a room for each chapter, over a ground floor of small files.

The ground floor, in reading order:

- `config`: where things lie, and which backend is meant.
- `parameters`: what a scheduler may give as text: converted and checked.
- `files`: write a file whole or not at all; the digest of one.
- `folders`: a folder of images: its splits, and the files of its classes.
- `labels`: what a path says of an image, and the digest of a data set.
- `images`: from a signed URL to a tensor: download, decode, shrink; the perceptual hash.
- `records`: the columns of a prediction and of a failure.
- `networks`: the networks that are known, and their last layer.
- `model`: a classifier with its card: save and load.
- `choice`: which checkpoint is meant.
- `runs`: what one chapter leaves for the next.
- `plots`: pictures in one style, with their alt texts and data.

The rooms:

- `snowflake`: chapters 1, 5 and 6: log in, run SQL, fill a stage, sign URLs, write back, clean up.
- `training`: chapter 2: the data set, pretrained weights, the loop, how long it will take.
- `cluster`: chapter 3, who works: start a Dask cluster, bring it the model, predict a batch.
- `inference`: chapter 3, on what: each image of a table exactly one row.
- `review`: chapter 4: figures, diagrams, heat maps, near-duplicates, the report.
- `commands`: the programs that `make` calls, behind one door: `python -m helpers`.

How an image becomes a row: `snowflake.stage` puts it on a stage, `snowflake.listing` lists and
signs it, `inference.classify` sends it to a worker, where `cluster.predictor` reads and predicts;
`inference.parts` keeps the answer, and `snowflake.writeback` merges it into the table.

Two packages beside this one stand in for what a reader may not have: `standin` for Snowflake,
`samples` for photographs. Only `snowflake.connection`, the commands and notebook 01 open them.
"""
