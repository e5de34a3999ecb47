"""The server: models behind HTTP, in the dialects that clients speak already. Needs the extra `serve`.

    dialect (bfl, openai)  --Wanted-->  jobs: accepted in the database  --Task-->  engine: drawn step by step
                           <--status, progress, signed link--           <--picture, kept whole or not at all

A dialect knows names and shapes of its API, the jobs know the database and the disk, the engine knows pipelines.
"""
