"""What a model can do, measured: prompts with a known truth, a judge that reads pictures, intervals, sheets.

    suites     what is asked, and which kinds of scene of a world it needs
    judge      picture -> what is on it: things with names, colours and places, the stage, the word on a sign
    witness    the judge with people: `figures` finds and reads them first, by `shapes`, and takes them off the picture
    verdict    what was asked and what is there -> right or wrong, part by part
    run        pipeline and suites -> report

The judge is two small networks that `learn` trains on rendered scenes. It is measured on rendered truth in every run.
"""
