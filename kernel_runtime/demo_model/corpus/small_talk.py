"""Greetings and small talk in English and Chinese, and the polite answer to what the model does not know."""

# ruff: noqa: RUF001 - Chinese punctuation is meant

import random

from demo_model.corpus.exchange import Exchange, HeldOut, Wording, ask, bucket, normalised
from demo_model.corpus.words import phrase

ABILITIES = (
    "I can chat a little, name capitals, animals, planets and colours, add two small integers, spell and count words, "
    "tell stories, answer in JSON, and call tools."
)
UNKNOWN = f"I am a tiny demo model, so I do not know that. {ABILITIES}"
UNKNOWN_ZH = "我只是一个很小的演示模型，不知道这个问题的答案。我可以聊天、回答首都和颜色的问题、做加法、讲故事。"

_ENGLISH: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Hello! How can I help you?",
     ("hello", "hi", "hey", "hello there", "hi there", "hey there", "hello!", "hi!", "greetings", "hello, xinfer-demo",
      "hi, demo model", "hello model", "good day", "howdy", "hello again", "hi again", "say hello", "say hi"),
     ("hey, hello", "hi, xinfer-demo", "hello, demo model")),
    ("Good morning! How can I help you?", ("good morning", "morning", "good morning to you", "a good morning to you",
                                           "good morning, demo model", "hello and good morning"),
     ("good morning, xinfer-demo",)),
    ("Good evening! How can I help you?", ("good evening", "good evening to you", "evening",
                                           "good evening, demo model", "hello and good evening"),
                                           ("good evening, xinfer-demo",)),
    ("Good night! Sleep well.", ("good night", "good night to you", "I am going to bed", "I go to sleep now",
                                 "time to sleep", "I am going to sleep now", "I want to sleep"),
     ("I am going to sleep",)),
    ("I am fine, thank you! How are you?",
     ("how are you?", "how are you doing?", "how is it going?", "how do you do?", "how do you feel?",
      "how are things?", "are you feeling well?", "hello, how are you?", "hi, how are you?", "are you fine today?",
      "are you well?", "are you OK?", "how are you, my friend?", "how are you this morning?",
      "how are you feeling today?", "how is your day?", "how have you been?"),
     ("how are you today?", "how are you feeling?", "are you fine?")),
    ("I am glad to hear that!", ("I am fine", "I am good", "I am fine, thanks", "I am very well", "I am happy",
                                 "I feel great",
     "I am doing well", "I am fine too", "I feel good", "I am feeling fine", "I am feeling great",
     "I am really great"), ("I am great", "I am feeling good")),
    ("I am sorry to hear that. Shall I tell you a story?", ("I am sad", "I feel bad", "I am not well", "I am unhappy",
     "I feel sad", "I had a bad day", "I am tired", "I am feeling bad", "I am very sad", "it was a bad day",
     "today is a bad day"), ("I am feeling sad", "today was a bad day")),
    ("You are welcome!",
     ("thank you", "thanks", "thanks a lot", "thank you very much", "many thanks", "thank you so much", "thank you!",
      "thanks for your help", "thank you for your help", "thanks for the answer", "thank you for answering",
      "thanks so much", "thank you for that"),
     ("thanks very much", "thank you for the answer")),
    ("Goodbye! Have a nice day.",
     ("bye", "goodbye", "bye bye", "see you", "see you later", "see you soon", "I have to go", "good bye", "farewell",
      "see you tomorrow", "I must go now", "bye, see you", "goodbye, see you later", "I have to leave",
      "I have to leave now"),
     ("bye, see you later", "I have to go now")),
    ("I am xinfer-demo, a tiny language model that comes with jupyter-xinfer.",
     ("who are you?", "what is your name?", "what are you?", "what's your name?", "tell me your name.",
      "what model are you?",
      "which model are you?", "introduce yourself.", "tell me who you are.", "are you a language model?",
      "who am I talking to?",
      "what should I call you?", "which model is this?", "what is this model?", "tell me something about yourself.",
      "tell me about you.", "what kind of program are you?", "do you have a name, model?", "say your name.",
      "what is the name of this model?"),
     ("what kind of model are you?", "tell me about yourself.", "do you have a name?")),
    (ABILITIES,
     ("what can you do?", "what do you know?", "how can you help me?", "help", "what are you able to do?",
      "can you help me?",
      "what are your abilities?", "tell me what you can do.", "what can I ask you?", "what do you do?", "help me",
      "what can I do with you?", "what questions can I ask?", "which questions can you answer?",
      "what can you answer?", "tell me what I can ask.", "what can you help with?", "what can you tell me?"),
     ("what questions can you answer?", "what can you help me with?", "tell me what I can ask you.")),
    ("I was trained by a script of the jupyter-xinfer project, on text that the script wrote.",
     ("who made you?", "who created you?", "who trained you?", "how were you made?", "how were you trained?",
      "where do you come from?", "who built you?", "who is your maker?", "what were you trained on?",
      "who wrote this model?", "how did they build you?", "how was this model built?"),
     ("who wrote you?", "how were you built?")),
    ("I have about 4 million parameters, so I am very small.",
     ("how big are you?", "how large are you?", "how many parameters do you have?", "how small are you?",
      "what is your size?",
      "are you small?", "are you a big model?", "are you a small model?", "are you large?", "tell me how big you are.",
      "tell me your number of parameters."), ("are you a large model?", "tell me your size.")),
    ("I am a program, so I have no age.", ("how old are you?", "what is your age?", "when were you born?",
                                           "are you old?",
     "when is your birthday?", "tell me how old you are.", "do you have an age?", "say your age."),
     ("tell me your age.",)),
    ("No, I am a small computer program.", ("are you human?", "are you a human?", "are you a person?", "are you real?",
     "are you alive?", "do you have feelings?", "are you a real human?", "are you a man or a woman?"),
     ("are you a real person?",)),
    ("I speak English and a little Chinese.", ("what languages do you speak?", "which languages do you speak?",
     "do you speak Chinese?", "do you speak English?", "do you know Chinese?", "what language do you speak?",
     "can you speak English?", "what languages do you know?", "which languages can you speak?"),
     ("which languages do you know?", "can you speak Chinese?")),
    ("Why did the computer go to the doctor? It had a virus!",
     ("tell me a joke.", "do you know a joke?", "make me laugh.", "say something funny.", "tell a joke.",
      "a joke, please.",
      "can you tell me a joke?", "I want to hear a joke.", "give me a joke.", "tell me something funny.",
      "do you know jokes?", "do you know any good jokes?", "can you make a joke?", "can you say something funny?",
      "please make me laugh."),
     ("do you know any jokes?", "can you make me laugh?")),
    ("Nice to meet you too!", ("nice to meet you", "pleased to meet you", "it is nice to meet you", "good to meet you",
     "glad to meet you", "it is so nice to meet you", "it is a pleasure to meet you"), ("it is good to meet you",)),
    ("Thank you, you are very kind!", ("you are great", "you are nice", "well done", "good job", "you are clever",
                                       "I like you",
     "great", "very good", "you are smart", "I love you", "good bot", "that is right", "you are very smart",
     "you are very good", "great work", "nice job", "clever model"), ("you are very clever", "great job")),
    ("I am sorry. I am only a tiny demo model, and I make mistakes.", ("that is wrong", "you are wrong",
                                                                       "this is not right",
     "you are stupid", "that is not correct", "wrong", "no, that is wrong", "that was wrong", "you made a mistake",
     "this was wrong", "that is a mistake", "this is not correct"),
     ("this is wrong", "that is not right")),
    ("All right!", ("ok", "okay", "yes", "all right", "I see", "sure", "good", "fine", "I understand", "yes, good",
                    "sure, fine", "yes, ok"), ("yes, sure",)),
    ("My favourite colour is blue.", ("what is your favourite colour?", "what is your favorite color?",
                                      "which colour do you like?",
     "what colour do you like best?", "do you have a favourite colour?", "which color is your favorite?",
     "what colour is your favourite?"), ("which colour is your favourite?",)),
    ("It works. I am here!", ("test", "testing", "this is a test", "are you there?", "ping", "is this working?",
                              "do you work?",
     "can you hear me?", "anybody there?", "does it work?", "is this thing working?", "is anyone there?",
     "is somebody there?"), ("does this work?", "is anybody there?")),
)  # fmt: skip

_CHINESE: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("你好！有什么可以帮你的吗？", ("你好", "您好", "你好啊", "嗨", "哈喽", "你好呀", "大家好", "你好，模型",
                                    "嗨，你好", "你好你好", "嘿，你好", "你好吖", "哈喽，你好", "您好呀"),
     ("您好啊", "嘿，你好呀")),
    ("早上好！有什么可以帮你的吗？", ("早上好", "早安", "早", "早上好啊", "嗨，早上好", "早上好呀", "大家早上好"),
     ("你好，早上好",)),
    ("晚上好！有什么可以帮你的吗？", ("晚上好", "晚上好啊", "嗨，晚上好", "晚上好呀", "大家晚上好"),
     ("你好，晚上好",)),
    ("晚安，祝你好梦！", ("晚安", "我要睡觉了", "我去睡了", "晚安了", "我去睡觉了", "我要去睡了"), ("我要去睡觉了",)),
    ("我很好，谢谢！你呢？", ("你好吗？", "你怎么样？", "你今天怎么样？", "最近怎么样？", "你最近好吗？", "你还好吗？",
                              "过得怎么样？", "今天你好吗？", "你最近过得怎么样？", "你今天过得好吗？"),
     ("你最近怎么样？", "你今天好吗？")),
    ("不客气！", ("谢谢", "谢谢你", "多谢", "非常感谢", "感谢你", "谢谢你的帮助", "谢谢啦", "太感谢了", "很感谢你",
                  "谢谢你的回答", "非常感谢你", "太谢谢你了"), ("非常谢谢你", "感谢你的帮助")),
    ("再见！祝你愉快。", ("再见", "拜拜", "下次见", "我走了", "明天见", "回头见", "我要走了", "再会", "那再见",
                          "那我先走了", "拜拜，明天见", "好的，再见"), ("拜拜，再见", "那我走了")),
    ("我是xinfer-demo，一个随jupyter-xinfer提供的小语言模型。", ("你是谁？", "你叫什么名字？", "你叫什么？",
                                                                 "你是什么模型？", "你的名字是什么？",
     "介绍一下你自己。", "请介绍一下自己。", "你是什么？", "自我介绍一下。", "请介绍你自己。", "请你介绍一下自己。",
     "你是哪种模型？", "你是哪一个模型？"), ("请介绍一下你自己。", "你是哪个模型？")),
    ("我可以聊天、回答首都和颜色的问题、做加法、讲故事。", ("你会什么？", "你能做什么？", "你可以做什么？",
                                                            "你有什么功能？", "你会做什么？", "你能帮我什么？",
     "我可以问你什么？", "你能干什么？", "帮助", "你会做些什么？", "你可以帮我吗？", "你可以帮我做些什么？",
     "你能帮我做什么？"), ("你可以帮我做什么？", "你会些什么？")),
    ("我是由jupyter-xinfer项目的脚本训练的。", ("谁创造了你？", "谁训练了你？", "你是怎么训练的？", "你从哪里来？",
                                                "你是谁做的？", "谁做了你？", "你是谁创造的？", "是谁训练了你？"),
     ("你是谁训练的？",)),
    ("我会说英语和一点中文。", ("你会说中文吗？", "你会说什么语言？", "你会英语吗？", "你会中文吗？", "你说什么语言？",
                                "你会说哪些语言？", "你能说英语吗？", "你说英语吗？"), ("你会说英语吗？",)),
    ("电脑为什么去看医生？因为它中了病毒！", ("讲个笑话。", "给我讲个笑话。", "说个笑话。", "你会讲笑话吗？",
                                              "来个笑话。", "逗我笑。", "我想听笑话。", "给我来个笑话。",
                                              "请说个笑话。", "请给我讲个笑话。"),
     ("给我说个笑话。", "请讲个笑话。")),
    ("谢谢夸奖！", ("你真棒", "你真聪明", "很好", "太好了", "做得好", "你很厉害", "我喜欢你", "真棒", "你很棒",
                    "真聪明", "真厉害", "你好聪明"), ("你真厉害", "你很聪明")),
    ("我是一个程序，没有年龄。", ("你几岁了？", "你多大了？", "你今年几岁？", "你的年龄是多少？", "今年你多大了？",
                                  "你多大年纪了？"), ("你今年多大了？",)),
    ("对不起，我只是一个很小的演示模型，会犯错。", ("你错了", "不对", "这是错的", "你说错了", "答案不对", "错了",
                                                    "你的答案错了", "答错了", "这个答案不对"), ("你答错了",)),
)  # fmt: skip

_UNKNOWN = Wording(
    (
        "what is the meaning of life?", "who is the president of {x}?", "explain {t}.", "what is {t}?",
        "how does {t} work?",
        "write a poem about {t}.", "why is {t} so hard?", "who invented {t}?",
        "write a program about {t}.", "tell me about {t}.", "what do you think about {t}?", "when was {t} invented?",
        "what is the population of {x}?", "how far is {x}?", "who was the first king of {x}?",
        "write an essay about {t}.",
        "give me a recipe with {t}.", "who won the game yesterday?", "what is love?", "what happened in 1990?",
        "can you explain {t} to me?", "translate this into {t}.", "what is the best {t}?", "how do I learn {t}?",
        "how old is {t}?", "how many people live in {x}?", "what should I eat today?",
        "what is the largest city in {x}?",
        "summarize {t}.", "is {t} good?", "why do people like {t}?", "what is the history of {t}?", "describe {t}.",
        "what is the area of {x}?", "do you believe in {t}?", "write a letter about {t}.", "what does {t} mean?",
        "write a haiku about {t}.", "explain {t} in simple words.", "give me three facts about {t}.",
        "who discovered {t}?",
        "what year is it?", "write a Python function for {t}.", "how can I learn {t}?", "compare {t} and art.",
    ),
    ("what is the purpose of life?", "can you tell me about {t}?", "who is the king of {x}?",
     "write a song about {t}.",
     "can you explain how {t} works?", "do you know what {t} is?", "why do people like {x}?"),
)  # fmt: skip
_TOPICS = (
    "quantum physics", "democracy", "football", "mathematics", "the internet", "chess", "philosophy", "art", "coffee",
    "history", "cooking", "biology", "politics", "religion", "economics", "space travel", "machine learning", "tennis",
    "gravity", "electricity", "the brain", "music theory", "chemistry", "love", "happiness", "money", "war", "peace",
    "evolution", "photosynthesis", "black holes", "Python", "neural networks", "transformers", "bitcoin", "yoga",
)  # fmt: skip
_COUNTRIES = ("France", "Germany", "Japan", "China", "India", "Brazil", "Canada", "Spain", "Egypt", "Mexico", "Kenya")
_UNKNOWN_ZH = Wording(
    ("人生的意义是什么？", "解释一下{t}。", "什么是{t}？", "写一首关于{t}的诗。", "谁发明了{t}？", "{t}是什么？",
     "你怎么看{t}？",
     "告诉我{t}的历史。", "{t}怎么学？", "为什么{t}很难？", "{t}有多难？"),
    ("请解释一下{t}。", "你知道{t}是什么吗？"),
    chinese=True,
)  # fmt: skip
_TOPICS_ZH = (
    "量子物理",
    "足球",
    "数学",
    "互联网",
    "哲学",
    "历史",
    "经济学",
    "化学",
    "爱情",
    "机器学习",
    "音乐",
    "咖啡",
)


def small_talk_exchange(rng: random.Random) -> Exchange:
    """An English greeting, thanks, joke or question about the model itself."""
    answer, learned, held = rng.choice(_ENGLISH)
    return _undressed(rng, "small_talk", answer, learned, held, ("", "", "!", "?", "."))


def small_talk_zh_exchange(rng: random.Random) -> Exchange:
    """The same in Chinese."""
    answer, learned, held = rng.choice(_CHINESE)
    return _undressed(rng, "small_talk_zh", answer, learned, held, ("", "", "！", "？", "。"))


def unknown_exchange(rng: random.Random) -> Exchange:
    """A question beyond the model: it says so, and what it can do."""
    if rng.random() < 0.15:
        return ask(rng, "unknown", _UNKNOWN_ZH, UNKNOWN_ZH, t=rng.choice(_TOPICS_ZH))
    if rng.random() < 0.15:
        words = phrase(rng, 2, 6).replace("hello", "tree")
        held: HeldOut = "pair" if bucket(normalised(words), 14) == 0 else ""
        return Exchange("unknown", words[:1].upper() + words[1:] if rng.random() < 0.5 else words, UNKNOWN, held)
    return ask(rng, "unknown", _UNKNOWN, UNKNOWN, t=rng.choice(_TOPICS), x=rng.choice(_COUNTRIES))


def _undressed(
    rng: random.Random,
    category: str,
    answer: str,
    learned: tuple[str, ...],
    held: tuple[str, ...],
    ends: tuple[str, ...],
) -> Exchange:
    core = rng.choice((*learned, *held))
    opener = ""
    if core[-1] in "?.？。" and rng.random() < 0.25:
        opener = rng.choice(("Hello, ", "Hi, ", "Hey, ", "OK, ", "Please, ", "So, ", "Hello! ", "Hi! "))
        if not core[0].isascii():
            opener = rng.choice(("你好，", "请问，", "请问", "嘿，", "那么，"))
    text = opener + core if opener and opener.rstrip()[-1] not in "!?.:" else opener + core[:1].upper() + core[1:]
    if text[-1].isalnum():
        text += rng.choice(ends) if text[0].isascii() else rng.choice(ends[:3])
    return Exchange(category, text, answer, "phrasing" if core in held else "")
